"""`load`: a worker for a model, with the settings given as flags."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from atelier.cli.failure import Failure
from atelier.cli.flags import settings_body, with_settings
from atelier.cli.options import AsJSON
from atelier.cli.output import show_json
from atelier.cli.rest_client import Server
from atelier.cli.text_tables import Column, listing
from atelier.errors import ModelNotFound
from atelier.names import ModelName, find_name

POLL_SECONDS = 0.2
ESTIMATED = (("Weights", "weights"), ("KV cache", "kv_cache"), ("Compute", "compute"), ("Total", "total"))

Gpu = Annotated[
    str | None,
    typer.Option(
        metavar="off|max|LAYERS|SHARE",
        help="Layers held on the GPU: none, all, a number of them, or a share with a decimal point such as 0.5.",
    ),
]


@with_settings("load", but=("gpu_layers",), short={"context_length": "-c"})
def load(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A key as `atelier ls` shows it, or its short form.")],
    identifier: Annotated[str | None, typer.Option(help="What to call the instance: its model's key.")] = None,
    gpu: Gpu = None,
    ttl: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Unload it after so long without work.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Whose settings hold where no flag says otherwise.")] = None,
    estimate_only: Annotated[
        bool, typer.Option("--estimate-only", help="Load nothing: say how much memory it would take.")
    ] = False,
    as_json: AsJSON = False,
    **settings: Any,
) -> None:
    body = {"model": model, **settings_body("load", settings)}
    if identifier:
        body["identifier"] = identifier
    if preset:
        body["preset"] = preset
    if ttl is not None:
        body["ttl"] = ttl
    with Server.from_environment() as server:
        if (layers := gpu_layers(gpu, server, model)) is not None:
            body["gpu_layers"] = layers
        if estimate_only:
            show_estimate(server.post("/api/v1/models/load", {**body, "estimate_only": True}), as_json=as_json)
            return
        with shown_progress(server, model):
            reply = server.post("/api/v1/models/load", body, patient=True)
    if as_json:
        show_json(reply)
    else:
        typer.echo(f"Loaded {reply['instance_id']} in {reply['load_time_seconds']:.1f} s")


def show_estimate(reply: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(reply)
        return
    memory = reply["memory_bytes"]
    rows = [[title, f"{memory[name] / 2**20:,.0f} MiB"] for title, name in ESTIMATED]
    typer.echo(listing([Column("MEMORY"), Column("ESTIMATE", right=True)], rows, None))


def gpu_layers(gpu: str | None, server: Server, model: str) -> int | None:
    """What `--gpu` means in layers; None leaves it to the server, which takes all of them."""
    if gpu is None or gpu == "max":
        return None
    if gpu == "off":
        return 0
    if gpu.isdecimal():
        return int(gpu)
    return round(share(gpu) * _layers_of(server, model))


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"--gpu takes off, max, a number of layers or a share from 0.0 to 1.0, not {text}")
    return value


def _layers_of(server: Server, model: str) -> int:
    entries = {entry["key"]: entry for entry in server.get("/api/v1/models")["models"]}
    try:
        found = find_name(model, entries, [])
    except ModelNotFound as error:
        raise Failure(error.message) from None
    assert isinstance(found, ModelName)
    return int(entries[found.key]["layers"])


@contextmanager
def shown_progress(server: Server, model: str) -> Iterator[None]:
    """Inside, a terminal shows how far the load is."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(f"Loading {model}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task, ended = progress.add_task("load", total=1.0), threading.Event()
        follower = threading.Thread(
            target=_follow, args=(server, ended, lambda part: progress.update(task, completed=part)), daemon=True
        )
        follower.start()
        try:
            yield
        finally:
            ended.set()


def _follow(server: Server, ended: threading.Event, show: Any) -> None:
    while not ended.wait(POLL_SECONDS):
        try:
            instances = server.get("/api/v1/instances")["instances"]
        except Failure:
            continue  # the load itself will tell
        show(load_progress(instances))


def load_progress(instances: list[dict[str, Any]]) -> float:
    """How far the newest load is, 0 to 1: the server does not say which one is ours until it is done."""
    loading = [instance for instance in instances if instance["state"] in ("starting", "loading")]
    newest = max(loading, key=lambda instance: instance["started_at"] or 0, default=None)
    return float(newest["load_progress"] or 0) if newest else 0.0
