"""`disk`: how much room the server's files take."""

import typer

from atelier.cli.options import AsJSON
from atelier.cli.output import human_size, printable, show_json, show_listing
from atelier.cli.rest_client import JSON, Server
from atelier.cli.text_tables import Column

COLUMNS = (Column("NAME"), Column("WHAT"), Column("SIZE", right=True), Column("NOTE"))

Row = tuple[str, str, int, str]
"""What the columns show, its size in bytes."""


def disk(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        use = server.get("/api/v1/disk", patient=True)
    if as_json:
        show_json(use)
        return
    show_listing(COLUMNS, [[name, what, human_size(size), note] for name, what, size, note in rows_of(use)])
    library, used = human_size(use["library_bytes"]), human_size(use["used_bytes"])
    typer.echo(f"\nThe library's models take {library}, all of the server's files {used}; each file counts once.")
    for each in use["file_systems"]:
        free, total = human_size(each["free_bytes"]), human_size(each["total_bytes"])
        typer.echo(printable(f"{each['path']} has {free} of {total} free."))


def rows_of(use: JSON) -> list[Row]:
    """Of each kind the largest first."""
    kinds = [
        [_model(each) for each in use["models"]],
        [(each["job_id"], "unfinished download", each["size_bytes"], "") for each in use["downloads"]],
        [(each["path"], "left by a download", each["size_bytes"], "nobody needs it") for each in use["leftovers"]],
        [_cache(each) for each in use["caches"]],
    ]
    return [
        *(row for kind in kinds for row in sorted(kind, key=lambda row: -row[2])),
        ("adapters", "LoRA files", use["adapters_bytes"], ""),
        ("logs", "of services and workers", use["logs_bytes"], ""),
        ("database", "of the registry", use["database_bytes"], ""),
        ("others", "in the models' folder", use["other_bytes"], "of no model"),
    ]


def _model(model: JSON) -> Row:
    note = f"{model['names']} names" if model["names"] > 1 else ""
    return model["key"], "model", model["size_bytes"], note if model["in_library"] else "elsewhere, not counted"


def _cache(cache: JSON) -> Row:
    note = "" if cache["instance"] else "of no model that is known"
    return cache["instance"] or cache["directory"], "saved prompts", cache["size_bytes"], note
