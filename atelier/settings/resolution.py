"""What overrides what: settings resolved field by field, with the origin of each value.

request → preset → the instance's own → the model's default → the file's metadata → built-in default
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from atelier.settings.groups import Inference, Load, Prompt
from atelier.settings.settings_table import Setting, rows_of

G = TypeVar("G", Load, Prompt, Inference)

BUILT_IN = "built-in default"
MODEL_FILE = "model file"


@dataclass(frozen=True, slots=True)
class Layer:
    """Some settings and where they come from, such as "request" or "preset precise".

    A value of None is "not set here".
    """

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Resolved(Generic[G]):
    """Every setting of one group, by name."""

    kind: type[G]
    values: Mapping[str, Value]

    def build(self) -> G:
        """As the group's dataclass."""
        return self.kind(**{name: entry.value for name, entry in self.values.items()})


def resolve(kind: type[G], layers: Iterable[Layer]) -> Resolved[G]:
    """The highest layer (first given) that sets a field wins it; checked against the table."""
    stack = list(layers)
    return Resolved(kind, {row.name: _resolve_one(row, stack) for row in rows_of(kind).values()})


def _resolve_one(row: Setting, layers: list[Layer]) -> Value:
    for layer in layers:
        if (value := layer.values.get(row.name)) is not None:
            return Value(row.check(value), layer.origin)
    return Value(row.default, BUILT_IN)
