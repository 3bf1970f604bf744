"""Settings as command-line flags, made from the table in which each setting is declared once.
`load`: a worker for a model, with the settings given as flags."""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import typer

from atelier.cli.output import AsJSON, Column, Failure, listing, show_json
from atelier.cli.rest_client import Server
from atelier.errors import ModelNotFound
from atelier.names import ModelName, find_name
from atelier.settings.settings_table import TABLE, Group, Setting


def with_settings(
    group: Group, *, but: tuple[str, ...] = (), short: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command whose last parameter is `**settings` one flag per setting of the group.

    A flag that was not given arrives as None. `short` maps a setting to its one-letter flag.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
        flags = [flag(row, (short or {}).get(name)) for name, row in TABLE[group].items() if name not in but]
        command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        return command

    return decorate


def flag(row: Setting, short: str | None = None) -> inspect.Parameter:
    """One setting as a keyword parameter that typer understands."""
    long = "--" + row.name.replace("_", "-")
    names = [f"{long}/--no-{long[2:]}" if _plain(row.type) is bool else long, *([short] if short else [])]
    option = typer.Option(
        *names,
        help=_help(row),
        min=row.facts.minimum if _is_number(row) else None,
        max=row.facts.maximum if _is_number(row) else None,
        metavar=_metavar(row),
    )
    annotation = Annotated[_flag_type(row) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def settings_body(group: Group, given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, by the names that the REST API has for them."""
    rows = TABLE[group]
    return {rows[name].facts.lmstudio: _value(rows[name], raw) for name, raw in given.items() if raw not in (None, [])}


def _value(row: Setting, raw: Any) -> Any:
    if not _is_numbers(row):
        return raw
    try:
        return [float(part) for part in str(raw).split(",")]
    except ValueError:
        raise typer.BadParameter(f"--{row.name.replace('_', '-')} takes numbers, with commas between") from None


def _flag_type(row: Setting) -> Any:
    if row.facts.choices:
        return Literal[row.facts.choices]
    return str if _is_numbers(row) else _plain(row.type)


def _plain(kind: Any) -> Any:
    """The type without `| None`."""
    return next((arg for arg in get_args(kind) if arg is not NoneType), kind) if NoneType in get_args(kind) else kind


def _is_numbers(row: Setting) -> bool:
    """A list in one flag, with commas; a list of texts is a flag that may be given again."""
    return bool(row.type == list[float])


def _is_number(row: Setting) -> bool:
    return _plain(row.type) in (int, float)


def _help(row: Setting) -> str:
    if row.default in (None, []):
        return row.facts.description
    default = ("off", "on")[row.default] if isinstance(row.default, bool) else row.default
    return f"{row.facts.description} Default: {default}."


def _metavar(row: Setting) -> str | None:
    if _is_numbers(row):
        return "NUMBER,..."
    if row.facts.form:
        return row.facts.form
    return (row.facts.unit or "NUMBER").upper() if _is_number(row) else None


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
