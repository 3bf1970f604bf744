"""What the verbs share: common options, and output: results on stdout, remarks on stderr, tables, sizes and times."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from atelier.printable import printable as printable

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
ModelKey = Annotated[
    str, typer.Argument(metavar="MODEL", help="Key of a model, as `atelier ls` shows it, or its short form.")
]

GAPS = (2, 1)  # spaces between columns, by preference


class Failure(Exception):
    """The verb failed. The message says why and what to do; the exit status is 1."""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    right: bool = False  # aligned to the right, as numbers are


def show_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_listing(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Fitted to the terminal's width; in a pipe every row is one line."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(printable(listing(columns, rows, width)))


def remark(text: str) -> None:
    typer.echo(text, err=True)


def listing(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> str:
    """A table if it fits into `width` characters (None: always), otherwise one paragraph per row.

    The first column identifies the row: it becomes the paragraph's first line.
    """
    widths = [max(len(column.title), *(len(row[i]) for row in rows)) for i, column in enumerate(columns)]
    for gap in GAPS if width is not None else GAPS[:1]:
        if width is None or sum(widths) + gap * (len(widths) - 1) <= width:
            titles = [column.title for column in columns]
            return "\n".join(_line(columns, cells, widths, gap) for cells in (titles, *rows))
    return "\n".join(_paragraph(columns, row, width or 0) for row in rows)


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    placed = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for column, cell, width in zip(columns, cells, widths, strict=True)
    )
    return (" " * gap).join(placed).rstrip()


def _paragraph(columns: Sequence[Column], row: Sequence[str], width: int) -> str:
    facts = [f"{column.title.lower()} {cell}" for column, cell in zip(columns[1:], row[1:], strict=True) if cell]
    return "\n".join([row[0], *("  " + line for line in _filled(facts, width - 2))])


def _filled(facts: Sequence[str], width: int) -> list[str]:
    """The facts in order, as many to a line as fit."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(fact) + 3 <= width:
            lines[-1] += " · " + fact
        else:
            lines.append(fact)
    return lines


def human_size(count: int) -> str:
    """Bytes in decimal units: 91.7 MB."""
    size, units = float(count), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def human_count(count: int) -> str:
    """A number to two digits or more: 950, 12k, 3.4M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            value = count / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return str(count)


def human_time(seconds: float) -> str:
    """A duration in its two largest units: 3 h 12 min."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(shown) or "0 s"
