"""`ps`, `unload` and `scale`: the instances of models."""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

import typer

from atelier.cli.output import AsJSON, Column, Failure, ModelKey, human_size, printable, remark, show_json, show_listing
from atelier.cli.rest_client import Server, ServerRefused
from atelier.json_types import Json

COLUMNS = (
    Column("ID"),
    Column("MODEL"),
    Column("STATE"),
    Column("PIN"),
    Column("PID", right=True),
    Column("CONTEXT", right=True),
    Column("PARALLEL", right=True),
    Column("ACTIVE", right=True),
    Column("QUEUED", right=True),
    Column("CACHE", right=True),
    Column("REPRODUCIBLE"),
)

SEQUENCE_COLUMNS = (
    Column("REQUEST"),
    Column("INSTANCE"),
    Column("STATE"),
    Column("PRIORITY", right=True),
    Column("PROMPT", right=True),
    Column("DONE", right=True),
    Column("CACHED", right=True),
    Column("PREDICTED", right=True),
    Column("AGE", right=True),
)


def list_instances(
    sequences: Annotated[bool, typer.Option("--sequences", "-v", help="List also the sequences in progress.")] = False,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/instances")
        if sequences:
            for instance in reply["instances"]:
                instance["sequences"] = sequences_of(server, instance["id"])
    instances = reply["instances"]
    if as_json:
        show_json(reply)
    elif instances:
        show_listing(COLUMNS, [_row(instance) for instance in instances])
        _show_sequences(instances)
        _show_errors(instances)
    else:
        remark("Nothing is loaded. Load a model with: atelier load MODEL")


def sequences_of(server: Server, instance_id: str) -> list[Json]:
    """The sequences in progress. Empty if the instance was unloaded meanwhile, or if its worker fails."""
    try:
        return list(server.get(f"/api/v1/instances/{quote(instance_id)}/sequences")["sequences"])
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.NOT_FOUND:
            remark(printable(f"{instance_id}: {refusal}"))
        return []


def unload(
    instance: Annotated[
        str | None, typer.Argument(metavar="ID", help="Instance to unload (default: the only one).")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Unload all instances.")] = False,
    as_json: AsJSON = False,
) -> None:
    if instance and everything:
        raise typer.BadParameter("give an ID or --all, not both")
    with Server.from_environment() as server:
        chosen = [instance] if instance else choose(loaded_ids(server), everything)
        for identifier in chosen:
            server.post("/api/v1/models/unload", {"instance_id": identifier}, patient=True)
            if not as_json:
                typer.echo(f"Unloaded {identifier}")
    if as_json:
        show_json({"unloaded": chosen})


def scale(
    model: ModelKey,
    least: Annotated[int | None, typer.Option("--min", min=0, help="Minimum instances to keep loaded.")] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="Maximum instances to scale up to.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Stop scaling; keep the instances that are loaded.")] = False,
    as_json: AsJSON = False,
) -> None:
    if (least is None and most is None) != off:
        raise typer.BadParameter("use --min, --max or both, or --off")
    body = {"model": model} | {name: limit for name, limit in (("min", least), ("max", most)) if limit is not None}
    with Server.from_environment() as server:
        reply = server.post("/api/v1/models/replicas", body)
    if as_json:
        show_json(reply)
    else:
        text = instances_text(reply["replicas"]) if reply["replicas"] else "not scaled"
        typer.echo(f"{reply['model']}: {text}")


def instances_text(replicas: Json) -> str:
    """{"min": 1, "max": 3} as "1 to 3"."""
    return f"{replicas['min']}" if replicas["min"] == replicas["max"] else f"{replicas['min']} to {replicas['max']}"


def loaded_ids(server: Server) -> list[str]:
    return [instance["id"] for instance in server.get("/api/v1/instances")["instances"]]


def choose(loaded: list[str], everything: bool) -> list[str]:
    """The instances to unload when none is named. Raises Failure when that is ambiguous."""
    if everything or len(loaded) == 1:
        return loaded
    if not loaded:
        raise Failure("Nothing is loaded.")
    raise Failure(f"Several models are loaded: name one of {', '.join(loaded)}, or use --all.")


def _row(instance: Json) -> list[str]:
    return [
        instance["id"],
        instance["model"],
        state_of(instance),
        instance["pin"],
        *(str(instance[name] or "") for name in ("pid", "context_length", "parallel")),
        *(str(instance[name]) for name in ("active", "queued")),
        cache_of(instance),
        "yes" if instance["config"].get("reproducible") else "no",
    ]


def cache_of(instance: Json) -> str:
    """What saved prefixes take of the memory that they may take; empty if they may take none."""
    used, limit = instance["cache_ram_bytes"], instance["cache_ram_limit_bytes"]
    return f"{human_size(used)} of {human_size(limit)}" if limit else ""


def state_of(instance: Json) -> str:
    """The state; for a load also its progress."""
    state, progress = str(instance["state"]), instance.get("load_progress") or 0
    return f"{state} {progress:.0%}" if state == "loading" else state


def _show_sequences(instances: list[Json]) -> None:
    rows = [_sequence_row(instance["id"], each) for instance in instances for each in instance.get("sequences", ())]
    if rows:
        typer.echo()
        show_listing(SEQUENCE_COLUMNS, rows)


def _sequence_row(instance_id: str, sequence: Json) -> list[str]:
    return [
        f"{sequence['request_id']}#{sequence['choice']}",
        instance_id,
        sequence["state"],
        *(str(sequence[name]) for name in ("priority", "prompt_tokens", "done_tokens")),
        *(str(sequence[name]) for name in ("cached_tokens", "predicted_tokens")),
        f"{sequence['age_seconds']:.1f} s",
    ]


def _show_errors(instances: list[Json]) -> None:
    for instance in instances:
        if error := instance.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            remark(printable(f"{instance['id']}: {message}"))
