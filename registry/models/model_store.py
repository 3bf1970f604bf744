"""Models in the database: rows to dataclasses and back."""

import dataclasses
from pathlib import Path

from sqlalchemy import delete, select

from atelier.json_types import Json
from registry.database import Database
from registry.database_tables import ModelRow
from registry.models.model_facts import VERSION, ModelFacts
from registry.models.model_record import Model, Provenance, Replicas, Stamp
from registry.models.model_shape import Shape

FACTS = frozenset(field.name for field in dataclasses.fields(ModelFacts))


class ModelStore:
    """Every method is one transaction. Raises Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Model]:
        async with self._database.transaction() as session:
            rows = await session.scalars(select(ModelRow).order_by(ModelRow.key))
            return [_to_model(row) for row in rows]

    async def save(self, model: Model) -> None:
        async with self._database.transaction() as session:
            await session.merge(_to_row(model))

    async def remove(self, key: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(ModelRow).where(ModelRow.key == key))


def _to_row(model: Model) -> ModelRow:
    return ModelRow(
        key=model.key,
        path=str(model.path),
        source=str(model.source),
        display_name=model.display_name,
        facts=dataclasses.asdict(model.facts),
        size=model.stamp.size,
        changed=model.stamp.changed,
        imported_at=model.imported_at,
        provenance=dataclasses.asdict(model.provenance) if model.provenance else None,
        default_preset=model.default_preset,
        replicas=dataclasses.asdict(model.replicas) if model.replicas else None,
    )


def _to_facts(values: Json) -> ModelFacts:
    """Without those of an earlier reader that have another form: its files are read again."""
    shape = values.get("shape") if values.get("version") == VERSION else None
    known = {name: value for name, value in values.items() if name in FACTS}
    return ModelFacts(**{**known, "shape": Shape.from_json(shape) if shape else None})


def _to_model(row: ModelRow) -> Model:
    return Model(
        key=row.key,
        path=Path(row.path),
        source=Path(row.source),
        display_name=row.display_name,
        facts=_to_facts(row.facts),
        stamp=Stamp(row.size, row.changed),
        imported_at=row.imported_at,
        provenance=Provenance(**row.provenance) if row.provenance else None,
        default_preset=row.default_preset,
        replicas=Replicas(**row.replicas) if row.replicas else None,
    )
