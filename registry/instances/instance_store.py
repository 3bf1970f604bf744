"""Instances in the database: what should run, and how to find its worker again."""

from dataclasses import dataclass, fields
from typing import TypedDict

from sqlalchemy import delete, select

from atelier.json_types import Json
from registry.database import Database
from registry.database_tables import InstanceRow


class StoredPlacement(TypedDict):
    """The load settings that placement decided, and bytes by device."""

    device: str
    gpu_layers: int | None
    tensor_split: list[float]
    memory: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """One instance's row. Without a pid its launch was begun, and the outcome is unknown."""

    id: str
    model_key: str
    on_demand: bool
    settings: Json  # as requested
    presets: Json | None = None  # of PresetLayers
    ttl: float | None = None  # seconds without work after which it is unloaded
    placement: StoredPlacement | None = None
    started_at: float  # seconds since the epoch
    token: str
    address: str
    pid: int | None = None
    pid_started: str | None = None


class InstanceStore:
    """Every method is one transaction; raises Unavailable if the database does not respond."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[StoredInstance]:
        async with self._database.transaction() as session:
            rows = await session.scalars(select(InstanceRow).order_by(InstanceRow.id))
            return [StoredInstance(**{f.name: getattr(row, f.name) for f in fields(StoredInstance)}) for row in rows]

    async def save(self, record: StoredInstance) -> None:
        async with self._database.transaction() as session:
            await session.merge(InstanceRow(**{f.name: getattr(record, f.name) for f in fields(record)}))

    async def remove(self, instance_id: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(InstanceRow).where(InstanceRow.id == instance_id))
