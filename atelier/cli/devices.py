"""`devices`: what models can be put on."""

from typing import Any

from atelier.cli.client import Server
from atelier.cli.options import AsJSON
from atelier.cli.output import show_json, show_listing
from atelier.cli.tables import Column

COLUMNS = (
    Column("DEVICE"),
    Column("FREE", right=True),
    Column("MEMORY", right=True),
    Column("WHAT"),
    Column("INSTANCES"),
)


def list_devices(as_json: AsJSON = False) -> None:
    with Server.from_environment() as server:
        reply = server.get("/api/v1/devices", patient=True)
    if as_json:
        show_json(reply)
    else:
        show_listing(COLUMNS, [_row(device) for device in reply["devices"]])


def _row(device: dict[str, Any]) -> list[str]:
    sizes = [f"{device[name] / 2**30:.1f} GiB" for name in ("memory_free_bytes", "memory_total_bytes")]
    return [device["id"], *sizes, device["description"], ", ".join(device["instances"])]
