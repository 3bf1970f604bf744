"""Settings as command-line flags, made from the table in which each setting is declared once."""

import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import typer

from atelier.settings.settings_table import TABLE, Group, Setting


def with_settings(
    group: Group, *, but: tuple[str, ...] = (), short: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command whose last parameter is `**settings` one flag per setting of the group.

    A flag that was not given arrives as None. `short` maps a setting to its one-letter flag.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
        flags = [flag(row, (short or {}).get(name)) for name, row in TABLE[group].items() if name not in but]
        command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        return command

    return decorate


def flag(row: Setting, short: str | None = None) -> inspect.Parameter:
    """One setting as a keyword parameter that typer understands."""
    long = "--" + row.name.replace("_", "-")
    names = [f"{long}/--no-{long[2:]}" if _plain(row.type) is bool else long, *([short] if short else [])]
    option = typer.Option(
        *names,
        help=_help(row),
        min=row.facts.minimum if _is_number(row) else None,
        max=row.facts.maximum if _is_number(row) else None,
        metavar=_metavar(row),
    )
    annotation = Annotated[_flag_type(row) | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def settings_body(group: Group, given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, by the names that the REST API has for them."""
    rows = TABLE[group]
    return {rows[name].facts.lmstudio: _value(rows[name], raw) for name, raw in given.items() if raw not in (None, [])}


def _value(row: Setting, raw: Any) -> Any:
    if not _is_numbers(row):
        return raw
    try:
        return [float(part) for part in str(raw).split(",")]
    except ValueError:
        raise typer.BadParameter(f"--{row.name.replace('_', '-')} takes numbers, with commas between") from None


def _flag_type(row: Setting) -> Any:
    if row.facts.choices:
        return Literal[row.facts.choices]
    return str if _is_numbers(row) else _plain(row.type)


def _plain(kind: Any) -> Any:
    """The type without `| None`."""
    return next((arg for arg in get_args(kind) if arg is not NoneType), kind) if NoneType in get_args(kind) else kind


def _is_numbers(row: Setting) -> bool:
    """A list in one flag, with commas; a list of texts is a flag that may be given again."""
    return bool(row.type == list[float])


def _is_number(row: Setting) -> bool:
    return _plain(row.type) in (int, float)


def _help(row: Setting) -> str:
    if row.default in (None, []):
        return row.facts.description
    default = ("off", "on")[row.default] if isinstance(row.default, bool) else row.default
    return f"{row.facts.description} Default: {default}."


def _metavar(row: Setting) -> str | None:
    if _is_numbers(row):
        return "NUMBER,..."
    if row.facts.form:
        return row.facts.form
    return (row.facts.unit or "NUMBER").upper() if _is_number(row) else None
