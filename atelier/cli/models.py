"""`ls`, `show`, `import`, `rm` and `verify`: the models that the server has."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from atelier.cli.output import AsJSON, Column, Failure, human_size, printable, remark, show_json, show_listing
from atelier.cli.rest_client import JSON, Server, ServerRefused

LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)

COLUMNS = (
    Column("KEY"),
    Column("ARCH"),
    Column("PARAMS", right=True),
    Column("QUANT"),
    Column("SIZE", right=True),
    Column("CONTEXT", right=True),
    Column("LOADED", right=True),
)


MEMORY = (
    Column("CONTEXT", right=True),
    *(Column(title, right=True) for title in ("WEIGHTS", "KV", "COMPUTE", "TOTAL")),
)
MEMORY_PARTS = ("weights_bytes", "kv_cache_bytes", "compute_bytes", "total_bytes")


def list_models(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/models")
    models = reply["models"]
    if as_json:
        show_json(reply)
    elif models:
        show_listing(COLUMNS, [_row(model) for model in models])
    else:
        remark("No models yet. Download one with: atelier get USER/REPO, or import one with: atelier import FILE")


def import_model(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            help="A GGUF file on the server's machine, or a folder of them, such as ~/.lmstudio/models.",
        ),
    ],
    key: Annotated[str | None, typer.Option(metavar="PUBLISHER/NAME", help="Its key; taken from the file.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the file instead of copying it.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Leave the file where it is.")] = False,
    as_json: AsJSON = False,
) -> None:
    if link and in_place:
        raise typer.BadParameter("--link and --in-place exclude each other")
    mode = "link" if link else "in_place" if in_place else "copy"
    if path.expanduser().is_dir():
        _import_folder(path.expanduser().absolute(), key, mode, as_json=as_json)
        return
    with Server.from_environment() as server:
        model = _imported(server, path.expanduser().absolute(), key, mode)
    if as_json:
        show_json(model)
    else:
        typer.echo(f"Imported {model['key']}. Chat with it: atelier chat {model['key']}")


def show_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A key as `atelier ls` shows it, or its short form.")],
    template: Annotated[bool, typer.Option("--template", help="Print its chat template alone.")] = False,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        reply = server.get(f"/api/v1/models/{quote(model, safe='/')}/info")
    if as_json:
        show_json(reply)
    elif template:
        typer.echo(printable(reply["chat_template"] or ""), nl=False)
    else:
        typer.echo(printable("\n".join(f"{title:<16}{told}" for title, told in described(reply) if told)))
        rows = [
            [str(each["context_length"]), *(f"{each[name] / 2**20:,.0f}" for name in MEMORY_PARTS)]
            for each in reply["memory"]
        ]
        typer.echo("\nMemory of an instance by its context, in MiB:")
        show_listing(MEMORY, rows)


def described(model: JSON) -> list[tuple[str, str]]:
    """Title and text of each fact; empty texts are left out."""
    quantization, source = model.get("quantization") or {}, model["source"]
    abilities = {"embeddings": model["type"] == "embedding", "chat": bool(model["chat_template"])}
    abilities |= {
        "tools": model["made_for_tools"],
        "reasoning": model["made_for_reasoning"],
        "vision": model["made_for_vision"],
    }
    bits = quantization.get("bits_per_weight")
    return [
        ("key", model["key"]),
        ("name", model["display_name"]),
        ("architecture", model.get("architecture") or ""),
        ("parameters", f"{model.get('params_string') or ''}"),
        ("quantisation", f"{quantization.get('name') or ''}" + (f", {bits:g} bits a weight" if bits else "")),
        ("size", human_size(model["size_bytes"])),
        ("context", f"{model['max_context_length']} tokens"),
        ("layers", str(model["layers"] or "")),
        ("embedding", f"{model['embedding_length']} numbers" if model["embedding_length"] else ""),
        ("made for", ", ".join(name for name, able in abilities.items() if able)),
        ("licence", model["licence"] or ""),
        ("from", f"{source['source']} {source['name']} {source['revision'][:12]}" if source else ""),
        ("default preset", model["default_preset"] or ""),
        ("instances", instances_told(model["replicas"]) if model["replicas"] else ""),
        ("file", model["path"]),
        ("projector", model["projector"] or ""),
    ]


def scale(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A key as `atelier ls` shows it, or its short form.")],
    least: Annotated[int | None, typer.Option("--min", min=0, help="Instances that are kept loaded.")] = None,
    most: Annotated[
        int | None, typer.Option("--max", min=1, help="Instances up to which more start while calls wait.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="As many as are loaded, from now on.")] = False,
    as_json: AsJSON = False,
) -> None:
    if (least is None and most is None) != off:
        raise typer.BadParameter("give --min, --max or both; or --off")
    body = {"model": model} | {name: limit for name, limit in (("min", least), ("max", most)) if limit is not None}
    with Server.from_environment() as server:
        reply = server.post("/api/v1/models/replicas", body)
    if as_json:
        show_json(reply)
    else:
        told = instances_told(reply["replicas"]) if reply["replicas"] else "as many as are loaded"
        typer.echo(f"{reply['model']}: {told}")


def instances_told(replicas: JSON) -> str:
    """{"min": 1, "max": 3} as "1 to 3"."""
    return f"{replicas['min']}" if replicas["min"] == replicas["max"] else f"{replicas['min']} to {replicas['max']}"


def remove_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A key as `atelier ls` shows it, or its short form.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        if not yes and sys.stdin.isatty():
            typer.confirm(f"Delete the files of {model}?", abort=True)
        reply = server.post("/api/v1/models/remove", {"model": model}, patient=True)
    if as_json:
        show_json(reply)
    elif reply["deleted"]:
        typer.echo(f"Removed {reply['model']}: {_files(reply['deleted'])} deleted")
    else:
        typer.echo(f"Removed {reply['model']}; its file lies elsewhere, and stays")


def verify_model(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL...", help="Which; otherwise all.")] = None,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        chosen = models or [model["key"] for model in server.get("/api/v1/models")["models"]]
        replies = []
        for name in chosen:
            replies.append(server.post("/api/v1/models/verify", {"model": name}, patient=True))
            if not as_json:
                _tell_verdict(replies[-1])
    if as_json:
        show_json({"models": replies})
    if not all(reply["ok"] for reply in replies):
        raise typer.Exit(1)


def _files(paths: list[str]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths)} files"


def _tell_verdict(reply: JSON) -> None:
    if reply["ok"]:
        known = all(file["expected"] for file in reply["files"])
        typer.echo(f"{reply['model']}: {'as downloaded' if known else 'readable; nobody knows its digest'}")
    for file in reply["files"]:
        if file["fault"]:
            typer.echo(printable(f"{reply['model']}: {file['name']}: {file['fault']}"))


def _import_folder(folder: Path, key: str | None, mode: str, *, as_json: bool) -> None:
    """Every model below the folder; those that cannot be are told, and fail the command at its end."""
    if key:
        raise typer.BadParameter("--key names one model, and a folder may have many")
    files = models_below(folder)
    if not files:
        raise Failure(f"{folder} has no GGUF files.")
    imported: list[JSON] = []
    with Server.from_environment() as server:
        for file in files:
            try:
                imported.append(_imported(server, file, None, mode))
            except ServerRefused as refusal:
                remark(printable(f"{file}: {refusal}"))
                continue
            if not as_json:
                typer.echo(f"Imported {imported[-1]['key']}")
    if as_json:
        show_json({"models": imported})
    if len(imported) < len(files):
        raise typer.Exit(1)


def models_below(folder: Path) -> list[Path]:
    """The files that stand for a model: no later parts of split ones, no projectors, and links where they lead.

    The hub's cache has links to files without names; what the links are called tells which model it is.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() == ".gguf" and path.is_file())
    return sorted(path for path in found if not LATER_PART.search(path.name) and "mmproj" not in path.name.lower())


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
