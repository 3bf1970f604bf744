"""`ls`, `show`, `import`, `rm` and `verify`: the server's models."""

import re
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from atelier.cli.instances import instances_text
from atelier.cli.output import AsJSON, Column, Failure, ModelKey, human_size, printable, remark, show_json, show_listing
from atelier.cli.rest_client import Server, ServerRefused
from atelier.json_types import Json

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
            help="A GGUF file on the server's machine, or a folder of such files (~/.lmstudio/models, say).",
        ),
    ],
    key: Annotated[
        str | None, typer.Option(metavar="PUBLISHER/NAME", help="Key of the model (default: from the file).")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the file instead of copying it.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Use the file where it is; do not copy it.")] = False,
    as_json: AsJSON = False,
) -> None:
    if link and in_place:
        raise typer.BadParameter("--link and --in-place cannot be combined")
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
    model: ModelKey,
    template: Annotated[bool, typer.Option("--template", help="Print only the chat template.")] = False,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        reply = server.get(f"/api/v1/models/{quote(model, safe='/')}/info")
    if as_json:
        show_json(reply)
    elif template:
        typer.echo(printable(reply["chat_template"] or ""), nl=False)
    else:
        typer.echo(printable("\n".join(f"{title:<16}{text}" for title, text in described(reply) if text)))
        rows = [
            [str(each["context_length"]), *(f"{each[name] / 2**20:,.0f}" for name in MEMORY_PARTS)]
            for each in reply["memory"]
        ]
        typer.echo("\nMemory of an instance by context length, in MiB:")
        show_listing(MEMORY, rows)


def described(model: Json) -> list[tuple[str, str]]:
    """Title and text of each fact; the text is empty where nothing is known."""
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
        ("quantisation", f"{quantization.get('name') or ''}" + (f", {bits:g} bits per weight" if bits else "")),
        ("size", human_size(model["size_bytes"])),
        ("context", f"{model['max_context_length']} tokens"),
        ("layers", str(model["layers"] or "")),
        ("embedding", f"{model['embedding_length']} numbers" if model["embedding_length"] else ""),
        ("made for", ", ".join(name for name, able in abilities.items() if able)),
        ("licence", model["licence"] or ""),
        ("from", f"{source['source']} {source['name']} {source['revision'][:12]}" if source else ""),
        ("default preset", model["default_preset"] or ""),
        ("instances", instances_text(model["replicas"]) if model["replicas"] else ""),
        ("file", model["path"]),
        ("projector", model["projector"] or ""),
    ]


def remove_model(
    model: ModelKey,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
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
        typer.echo(f"Removed {reply['model']}; its file is outside the models folder and was kept")


def verify_model(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models to verify (default: all).")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    with Server.from_environment() as server:
        chosen = models or [model["key"] for model in server.get("/api/v1/models")["models"]]
        replies = []
        for name in chosen:
            replies.append(server.post("/api/v1/models/verify", {"model": name}, patient=True))
            if not as_json:
                _show_verdict(replies[-1])
    if as_json:
        show_json({"models": replies})
    if not all(reply["ok"] for reply in replies):
        raise typer.Exit(1)


def _files(paths: list[str]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths)} files"


def _show_verdict(reply: Json) -> None:
    if reply["ok"]:
        known = all(file["expected"] for file in reply["files"])
        typer.echo(f"{reply['model']}: {'matches its digests' if known else 'readable; its digest is unknown'}")
    for file in reply["files"]:
        if file["fault"]:
            typer.echo(printable(f"{reply['model']}: {file['name']}: {file['fault']}"))


def _import_folder(folder: Path, key: str | None, mode: str, *, as_json: bool) -> None:
    """Import every model below the folder. Rejected files are reported, and the exit status is then 1."""
    if key:
        raise typer.BadParameter("--key cannot be used with a folder")
    files = models_below(folder)
    if not files:
        raise Failure(f"{folder} has no GGUF files.")
    imported: list[Json] = []
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
    """One file of each model: no later parts of split models and no projectors. Links are not resolved.

    In the hub's cache the files have no names: the names of the links identify the models.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() == ".gguf" and path.is_file())
    return sorted(path for path in found if not LATER_PART.search(path.name) and "mmproj" not in path.name.lower())


def _imported(server: Server, path: Path, key: str | None, mode: str) -> Json:
    body = {"path": str(path), "mode": mode, **({"key": key} if key else {})}
    try:
        return server.post("/api/v1/models/import", body, patient=True)
    except ServerRefused as refusal:
        if path.is_file() and server.is_on_this_machine:
            raise
        where = f"The server opens the file itself: it must be on the machine of {server.url}."
        raise ServerRefused(f"{refusal} {where}", refusal.status) from None


def _row(model: Json) -> list[str]:
    return [
        model["key"],
        model.get("architecture") or "",
        model.get("params_string") or "",
        (model.get("quantization") or {}).get("name") or "",
        human_size(model["size_bytes"]),
        str(model["max_context_length"]),
        str(len(model["loaded_instances"]) or ""),
    ]
