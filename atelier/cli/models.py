"""`ls` and `import`: the models that the server has."""

from pathlib import Path
from typing import Annotated, Any

import typer

from atelier.cli.client import JSON, Server, ServerRefused
from atelier.cli.options import AsJSON
from atelier.cli.output import human_size, remark, show_json, show_listing
from atelier.cli.tables import Column

COLUMNS = (
    Column("KEY"),
    Column("ARCH"),
    Column("PARAMS", right=True),
    Column("QUANT"),
    Column("SIZE", right=True),
    Column("CONTEXT", right=True),
    Column("LOADED", right=True),
)


def list_models(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/models")
    models = reply["models"]
    if as_json:
        show_json(reply)
    elif models:
        show_listing(COLUMNS, [_row(model) for model in models])
    else:
        remark("No models yet. Give the server one with: atelier import FILE")


def import_model(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A GGUF file on the machine that the server runs on.", dir_okay=False)
    ],
    key: Annotated[str | None, typer.Option(metavar="PUBLISHER/NAME", help="Its key; taken from the file.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the file instead of copying it.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Leave the file where it is.")] = False,
    as_json: AsJSON = False,
) -> None:
    if link and in_place:
        raise typer.BadParameter("--link and --in-place exclude each other")
    mode = "link" if link else "in_place" if in_place else "copy"
    with Server.from_environment() as server:
        model = _imported(server, path.expanduser().absolute(), key, mode)
    if as_json:
        show_json(model)
    else:
        typer.echo(f"Imported {model['key']}. Chat with it: atelier chat {model['key']}")


def _imported(server: Server, path: Path, key: str | None, mode: str) -> JSON:
    body = {"path": str(path), "mode": mode, **({"key": key} if key else {})}
    try:
        return server.post("/api/v1/models/import", body, patient=True)
    except ServerRefused as refusal:
        if path.is_file() and server.is_on_this_machine:
            raise
        where = f"The server opens the file itself: it must lie on the machine of {server.url}."
        raise ServerRefused(f"{refusal} {where}", refusal.status) from None


def _row(model: dict[str, Any]) -> list[str]:
    return [
        model["key"],
        model.get("architecture") or "",
        model.get("params_string") or "",
        (model.get("quantization") or {}).get("name") or "",
        human_size(model["size_bytes"]),
        str(model["max_context_length"]),
        str(len(model["loaded_instances"]) or ""),
    ]
