"""`status`, `devices`, `disk` and `version`: the state of the server and of its machine."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from atelier import __version__
from atelier.cli.output import AsJSON, Column, human_size, human_time, printable, show_json, show_listing
from atelier.cli.rest_client import Server
from atelier.json_types import Json


def status(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/status")
        instances = [] if as_json else server.get("/api/v1/instances")["instances"]
        url = server.url
    if as_json:
        show_json(reply)
        return
    requests = reply["requests"]
    typer.echo(f"LM Atelier {reply['version']} at {url}, up for {human_time(reply['uptime_seconds'])}")
    typer.echo(f"registry  {reply['registry']}")
    typer.echo(f"models    {reply['models']}")
    typer.echo(f"instances {by_state(instances)}")
    typer.echo(f"requests  {requests['active']} active, {requests['waiting']} waiting")


def by_state(instances: list[Json]) -> str:
    """The number of instances in each state: "2 ready, 1 failed"."""
    counts = Counter(instance["state"] for instance in instances)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "none"


def version() -> None:
    typer.echo(f"atelier {__version__}")


@dataclass(frozen=True, slots=True)
class ReadingColumn:
    """A column that is shown if the driver of at least one device reports its value."""

    title: str
    name: str  # in the server's reply
    text: Callable[[Any], str]

    def cell(self, device: Json) -> str:
        value = (device.get("readings") or {}).get(self.name)
        return "" if value is None else self.text(value)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


SIZES = (Column("DEVICE"), Column("FREE", right=True), Column("MEMORY", right=True))
READINGS = (
    ReadingColumn("USED", "memory_used_bytes", _gib),
    ReadingColumn("BUSY", "utilization_percent", "{}%".format),
    ReadingColumn("TEMP", "temperature_celsius", "{} °C".format),
    ReadingColumn("POWER", "power_watts", "{:.0f} W".format),
    ReadingColumn("LIMIT", "power_limit_watts", "{:.0f} W".format),
)
TEXTS = (Column("WHAT"), Column("INSTANCES"))


def list_devices(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/devices", patient=True)
    if as_json:
        show_json(reply)
        return
    devices = reply["devices"]
    readings = [each for each in READINGS if any(each.cell(device) for device in devices)]
    columns = [*SIZES, *(Column(each.title, right=True) for each in readings), *TEXTS]
    show_listing(columns, [_device_row(device, readings) for device in devices])


def _device_row(device: Json, readings: list[ReadingColumn]) -> list[str]:
    sizes = [_gib(device[name]) for name in ("memory_free_bytes", "memory_total_bytes")]
    read = [each.cell(device) for each in readings]
    return [device["id"], *sizes, *read, device["description"], ", ".join(device["instances"])]


FILES = (Column("NAME"), Column("WHAT"), Column("SIZE", right=True), Column("NOTE"))

FileRow = tuple[str, str, int, str]
"""Cells of FILES, the size in bytes."""


def disk(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        use = server.get("/api/v1/disk", patient=True)
    if as_json:
        show_json(use)
        return
    show_listing(FILES, [[name, what, human_size(size), note] for name, what, size, note in file_rows(use)])
    library, used = human_size(use["library_bytes"]), human_size(use["used_bytes"])
    typer.echo(f"\nThe library's models take {library}, all files of the server {used}; each file is counted once.")
    for each in use["file_systems"]:
        free, total = human_size(each["free_bytes"]), human_size(each["total_bytes"])
        typer.echo(printable(f"{each['path']} has {free} of {total} free."))


def file_rows(use: Json) -> list[FileRow]:
    """By kind of file, the largest of each kind first."""
    kinds = [
        [_model_row(each) for each in use["models"]],
        [(each["job_id"], "unfinished download", each["size_bytes"], "") for each in use["downloads"]],
        [(each["path"], "left by a download", each["size_bytes"], "unused") for each in use["leftovers"]],
        [_cache_row(each) for each in use["caches"]],
    ]
    return [
        *(row for kind in kinds for row in sorted(kind, key=lambda row: -row[2])),
        ("adapters", "LoRA files", use["adapters_bytes"], ""),
        ("logs", "of services and workers", use["logs_bytes"], ""),
        ("database", "of the registry", use["database_bytes"], ""),
        ("others", "in the models' folder", use["other_bytes"], "of no model"),
    ]


def _model_row(model: Json) -> FileRow:
    note = f"{model['names']} names" if model["names"] > 1 else ""
    return model["key"], "model", model["size_bytes"], note if model["in_library"] else "elsewhere, not counted"


def _cache_row(cache: Json) -> FileRow:
    note = "" if cache["instance"] else "of an unknown model"
    return cache["instance"] or cache["directory"], "saved prompts", cache["size_bytes"], note
