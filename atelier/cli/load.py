"""`load`: starts a worker for a model, with one flag for each load setting."""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import typer

from atelier.cli.output import AsJSON, Column, Failure, ModelKey, listing, show_json
from atelier.cli.rest_client import Server
from atelier.errors import ModelNotFound
from atelier.json_types import Json
from atelier.names import ModelName, find_name
from atelier.settings.settings_table import TABLE, Setting

POLL_SECONDS = 0.2
ESTIMATED = (
    ("Weights", "weights"),
    ("of these in main memory", "weights_in_main_memory"),
    ("KV cache", "kv_cache"),
    ("Compute", "compute"),
    ("Total", "total"),
)
SHORT_FLAGS = {"context_length": "-c"}
LEFT_OUT = "gpu_layers"  # --gpu sets it

Gpu = Annotated[
    str | None,
    typer.Option(
        metavar="off|max|LAYERS|SHARE",
        help="Layers to put on the GPU: none, all, a number, or a share with a decimal point (0.5, say).",
    ),
]


def with_load_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command whose last parameter is `**settings` one flag per load setting; None: the flag is absent."""
    signature = inspect.signature(command)
    own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    flags = [flag(row) for row in TABLE["load"].values() if row.name != LEFT_OUT]
    command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    return command


def flag(row: Setting) -> inspect.Parameter:
    """The setting as a keyword parameter that typer turns into a flag."""
    long = _flag_name(row)
    short = [SHORT_FLAGS[row.name]] if row.name in SHORT_FLAGS else []
    option = typer.Option(
        f"{long}/--no-{long[2:]}" if _plain(row.type) is bool else long,
        *short,
        help=_help(row),
        min=row.facts.minimum if _is_number(row) else None,
        max=row.facts.maximum if _is_number(row) else None,
        metavar=_metavar(row),
    )
    annotation = Annotated[_flag_type(row) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def settings_body(given: Mapping[str, object]) -> Json:
    """The flags that were given, under the REST API's names. Raises BadParameter for a malformed list of numbers."""
    rows = TABLE["load"]
    return {rows[name].facts.lmstudio: _value(rows[name], raw) for name, raw in given.items() if raw not in (None, [])}


def _value(row: Setting, raw: object) -> object:
    if not _is_numbers(row):
        return raw
    try:
        return [float(part) for part in str(raw).split(",")]
    except ValueError:
        raise typer.BadParameter(f"{_flag_name(row)} takes comma-separated numbers") from None


def _flag_name(row: Setting) -> str:
    return "--" + row.name.replace("_", "-")


def _flag_type(row: Setting) -> Any:
    if row.facts.choices:
        return Literal[row.facts.choices]
    return str if _is_numbers(row) else _plain(row.type)


def _plain(kind: Any) -> Any:
    """The type without `| None`."""
    return next((arg for arg in get_args(kind) if arg is not NoneType), kind) if NoneType in get_args(kind) else kind


def _is_numbers(row: Setting) -> bool:
    """A list of numbers is one flag, with commas; a list of texts is a flag that may be repeated."""
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


@with_load_settings
def load(
    model: ModelKey,
    identifier: Annotated[str | None, typer.Option(help="Instance id (default: the model's key).")] = None,
    gpu: Gpu = None,
    ttl: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Unload the instance after this time without requests."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preset whose settings apply where no flag is given.")] = None,
    estimate_only: Annotated[
        bool, typer.Option("--estimate-only", help="Show how much memory the load would take, and load nothing.")
    ] = False,
    as_json: AsJSON = False,
    **settings: Any,
) -> None:
    body: Json = {"model": model, **settings_body(settings)}
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


def show_estimate(reply: Json, *, as_json: bool) -> None:
    if as_json:
        show_json(reply)
        return
    memory = reply["memory_bytes"]
    rows = [[title, f"{memory[name] / 2**20:,.0f} MiB"] for title, name in ESTIMATED if name in memory]
    typer.echo(listing([Column("MEMORY"), Column("ESTIMATE", right=True)], rows, None))


def gpu_layers(gpu: str | None, server: Server, model: str) -> int | None:
    """The value of `--gpu` in layers; None leaves it to the server, which uses the GPU for all layers."""
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
    """Shows the load's progress on a terminal while the block runs."""
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


def _follow(server: Server, ended: threading.Event, show: Callable[[float], None]) -> None:
    while not ended.wait(POLL_SECONDS):
        try:
            instances = server.get("/api/v1/instances")["instances"]
        except Failure:
            continue  # the load request reports it
        show(load_progress(instances))


def load_progress(instances: list[Json]) -> float:
    """The progress of the newest load, 0 to 1: until it is done, the server does not say which load is ours."""
    loading = [instance for instance in instances if instance["state"] in ("starting", "loading")]
    newest = max(loading, key=lambda instance: instance["started_at"] or 0, default=None)
    return float(newest["load_progress"] or 0) if newest else 0.0
