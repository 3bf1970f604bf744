"""Rows of facts as text: a table where it fits, otherwise one paragraph per row."""

from collections.abc import Sequence
from dataclasses import dataclass

GAPS = (2, 1)  # spaces between columns; the roomier first


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    right: bool = False  # aligned to the right, as numbers are


def listing(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> str:
    """The rows under their titles, in lines of at most `width` characters; None is as wide as needed.

    The first column names the row: where the table does not fit, it becomes the paragraph's first line.
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
