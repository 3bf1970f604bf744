"""`devices`: what models can be put on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atelier.cli.options import AsJSON
from atelier.cli.output import show_json, show_listing
from atelier.cli.rest_client import Server
from atelier.cli.text_tables import Column


@dataclass(frozen=True, slots=True)
class ReadingColumn:
    """One that is shown where some device's driver has something for it."""

    title: str
    name: str  # in the server's reply
    text: Callable[[Any], str]

    def cell(self, device: dict[str, Any]) -> str:
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
WORDS = (Column("WHAT"), Column("INSTANCES"))


def list_devices(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/devices", patient=True)
    if as_json:
        show_json(reply)
    else:
        _show(reply["devices"])


def _show(devices: list[dict[str, Any]]) -> None:
    readings = [each for each in READINGS if any(each.cell(device) for device in devices)]
    columns = [*SIZES, *(Column(each.title, right=True) for each in readings), *WORDS]
    show_listing(columns, [_row(device, readings) for device in devices])


def _row(device: dict[str, Any], readings: list[ReadingColumn]) -> list[str]:
    sizes = [_gib(device[name]) for name in ("memory_free_bytes", "memory_total_bytes")]
    read = [each.cell(device) for each in readings]
    return [device["id"], *sizes, *read, device["description"], ", ".join(device["instances"])]
