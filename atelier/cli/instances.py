"""`ps` and `unload`: what is loaded."""

from typing import Annotated, Any

import typer

from atelier.cli.client import Server
from atelier.cli.failure import Failure
from atelier.cli.options import AsJSON
from atelier.cli.output import printable, remark, show_json, show_listing
from atelier.cli.tables import Column

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


def list_instances(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/instances")
    instances = reply["instances"]
    if as_json:
        show_json(reply)
    elif instances:
        show_listing(COLUMNS, [_row(instance) for instance in instances])
        _show_errors(instances)
    else:
        remark("Nothing is loaded. Load a model with: atelier load MODEL")


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


def _show_errors(instances: list[dict[str, Any]]) -> None:
    for instance in instances:
        if error := instance.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            remark(printable(f"{instance['id']}: {message}"))
