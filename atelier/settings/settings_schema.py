"""Settings as pydantic fields, for validation at the HTTP edge and for OpenAPI."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, create_model

from atelier.settings.settings_table import TABLE, Group, Setting

MAX_TOKEN_ID = 2**31 - 1  # llama_token is an int32


def fields_model(name: str, rows: Iterable[tuple[str, Setting]]) -> type[BaseModel]:
    """A base model with one optional field per (public name, setting).

    Types are strict: a string is not a number. The bounds are the table's. None: unset.
    """
    fields: dict[str, Any] = {public: (annotation(row) | None, None) for public, row in rows}
    return create_model(name, __config__=ConfigDict(strict=True, extra="ignore"), **fields)


def annotation(row: Setting) -> Any:
    """The annotated type of one setting."""
    facts, kind = row.facts, _without_none(row.type)
    if kind in (int, float):
        return Annotated[kind, Field(description=_describe(row)), *_bounds(row, kind)]
    if kind == list[float]:
        number = Annotated[(float, *_bounds(row, float))]
        return Annotated[list[number], Field(description=_describe(row), max_length=facts.max_items)]
    if kind == list[str]:
        entry = Annotated[str, Field(min_length=1, max_length=facts.longest)]
        fewest = 1 if row.default else 0  # protobuf does not distinguish an empty list from an unset one
        return Annotated[list[entry], Field(description=_describe(row), min_length=fewest, max_length=facts.max_items)]
    if get_origin(kind) is Mapping:
        token: Any = Annotated[int, Ge(0), Le(MAX_TOKEN_ID)]
        bias: Any = Annotated[(float, *_bounds(row, float))]
        return Annotated[Mapping[token, bias], Field(description=_describe(row), max_length=facts.max_items)]
    if kind is str and facts.longest:
        return Annotated[str, Field(description=_describe(row), max_length=facts.longest)]
    if facts.choices:
        return Annotated[str, Field(description=_describe(row), pattern=f"^({'|'.join(facts.choices)})$")]
    return Annotated[kind, Field(description=_describe(row))]


def _bounds(row: Setting, kind: type[int] | type[float]) -> list[Any]:
    low, high = row.facts.minimum, row.facts.maximum
    finite = [AllowInfNan(False)] if kind is float else []
    return [*finite, *([Ge(kind(low))] if low is not None else []), *([Le(kind(high))] if high is not None else [])]


def _describe(row: Setting) -> str:
    unit = f" Unit: {row.facts.unit}." if row.facts.unit else ""
    default = "" if row.default in (None, [], {}) else f" Built-in default: {row.default}."
    form = f" Form: {row.facts.form}." if row.facts.form else ""
    return row.facts.description + form + unit + default


def _without_none(kind: Any) -> Any:
    chosen = [arg for arg in get_args(kind) if arg is not type(None)]
    return chosen[0] if type(None) in get_args(kind) else kind


GROUP_MODELS: Mapping[Group, type[BaseModel]] = {
    group: fields_model(f"{group.capitalize()}Settings", rows.items()) for group, rows in TABLE.items()
}
"""Each group of settings, under the table's own names."""
