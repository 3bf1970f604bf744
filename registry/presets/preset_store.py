"""Presets in the database, with their earlier versions."""

import orjson
from sqlalchemy import delete, func, select, tuple_

from atelier.settings.preset import Preset, settings_from_json, settings_json
from registry.database import Database
from registry.database_tables import PresetRow

MOST_VERSIONS = 100  # kept of one preset


class PresetStore:
    """Every method is one transaction. Raises Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> list[Preset]:
        """The newest version of every preset."""
        async with self._database.transaction() as session:
            newest = select(PresetRow.name, func.max(PresetRow.version)).group_by(PresetRow.name)
            query = select(PresetRow).where(tuple_(PresetRow.name, PresetRow.version).in_(newest))
            return [_to_preset(row) for row in await session.scalars(query.order_by(PresetRow.name))]

    async def versions(self, name: str) -> list[Preset]:
        """Newest first."""
        async with self._database.transaction() as session:
            query = select(PresetRow).where(PresetRow.name == name).order_by(PresetRow.version.desc())
            return [_to_preset(row) for row in await session.scalars(query)]

    async def add(self, preset: Preset) -> None:
        """Add a version; delete those beyond MOST_VERSIONS."""
        async with self._database.transaction() as session:
            session.add(_to_row(preset))
            oldest = preset.version - MOST_VERSIONS
            await session.execute(delete(PresetRow).where(PresetRow.name == preset.name, PresetRow.version <= oldest))

    async def remove(self, name: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(PresetRow).where(PresetRow.name == name))


def _to_row(preset: Preset) -> PresetRow:
    return PresetRow(
        name=preset.name,
        version=preset.version,
        model_key=preset.model,
        settings=orjson.loads(settings_json(preset.settings)),
        changed_at=preset.changed_at,
    )


def _to_preset(row: PresetRow) -> Preset:
    return Preset(
        name=row.name,
        version=row.version,
        model=row.model_key,
        settings=settings_from_json(orjson.dumps(row.settings)),
        changed_at=row.changed_at,
    )
