"""`ps` and `unload`: what is loaded."""

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import typer

from atelier.cli.output import AsJSON, Column, Failure, printable, remark, show_json, show_listing
from atelier.cli.rest_client import Server, ServerRefused

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
    sequences: Annotated[
        bool, typer.Option("--sequences", "-v", help="List what each has in work, and how far it is.")
    ] = False,
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


def sequences_of(server: Server, instance_id: str) -> list[dict[str, Any]]:
    """None of an instance that was unloaded meanwhile, or whose worker does not answer, which is said."""
    try:
        return list(server.get(f"/api/v1/instances/{quote(instance_id)}/sequences")["sequences"])
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.NOT_FOUND:
            remark(printable(f"{instance_id}: {refusal}"))
        return []


def unload(
    instance: Annotated[str | None, typer.Argument(metavar="ID", help="Which one, where several are loaded.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Unload all of them.")] = False,
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


def loaded_ids(server: Server) -> list[str]:
    return [instance["id"] for instance in server.get("/api/v1/instances")["instances"]]


def choose(loaded: list[str], everything: bool) -> list[str]:
    """What to unload when no instance is named."""
    if everything or len(loaded) == 1:
        return loaded
    if not loaded:
        raise Failure("Nothing is loaded.")
    raise Failure(f"Several models are loaded: name one of {', '.join(loaded)}, or give --all.")


def _row(instance: dict[str, Any]) -> list[str]:
    return [
        instance["id"],
        instance["model"],
        state_of(instance),
        instance["pin"],
        *(str(instance[name] or "") for name in ("pid", "context_length", "parallel")),
        *(str(instance[name]) for name in ("active", "queued")),
    ]


def state_of(instance: dict[str, Any]) -> str:
    """The state in a word, and how far a load is."""
    state, progress = str(instance["state"]), instance.get("load_progress") or 0
    return f"{state} {progress:.0%}" if state == "loading" else state


def _show_sequences(instances: list[dict[str, Any]]) -> None:
    rows = [_sequence_row(instance["id"], each) for instance in instances for each in instance.get("sequences", ())]
    if rows:
        typer.echo()
        show_listing(SEQUENCE_COLUMNS, rows)


def _sequence_row(instance_id: str, sequence: dict[str, Any]) -> list[str]:
    return [
        f"{sequence['request_id']}#{sequence['choice']}",
        instance_id,
        sequence["state"],
        *(str(sequence[name]) for name in ("priority", "prompt_tokens", "done_tokens")),
        *(str(sequence[name]) for name in ("cached_tokens", "predicted_tokens")),
        f"{sequence['age_seconds']:.1f} s",
    ]


def _show_errors(instances: list[dict[str, Any]]) -> None:
    for instance in instances:
        if error := instance.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            remark(printable(f"{instance['id']}: {message}"))
