"""Instances in the database: what should run, and how to find its worker again."""

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import delete, select

from registry.database import Database
from registry.database_tables import InstanceRow


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance. Without a pid, its launch was begun and nothing more is known."""

    id: str
    model_key: str
    on_demand: bool
    settings: dict[str, Any]  # as requested
    presets: dict[str, Any] | None = None  # PresetLayers
    ttl: float | None = None  # seconds without work after which it is unloaded
    placement: dict[str, Any] | None = None  # the devices that were chosen for it
    started_at: float  # seconds since the epoch
    token: str
    address: str
    pid: int | None = None
    pid_started: str | None = None


class InstanceStore:
    """Every method is one transaction; Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[InstanceRecord]:
        async with self._database.transaction() as session:
            rows = await session.scalars(select(InstanceRow).order_by(InstanceRow.id))
            return [InstanceRecord(**{f.name: getattr(row, f.name) for f in fields(InstanceRecord)}) for row in rows]

    async def save(self, record: InstanceRecord) -> None:
        async with self._database.transaction() as session:
            await session.merge(InstanceRow(**{f.name: getattr(record, f.name) for f in fields(record)}))

    async def remove(self, instance_id: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(InstanceRow).where(InstanceRow.id == instance_id))
