"""Where words go: results to standard output, remarks to standard error."""

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import typer

from atelier.cli.text_tables import Column, listing
from atelier.printable import printable as printable


def show_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_listing(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """As wide as the terminal; a pipe gets whole lines."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(printable(listing(columns, rows, width)))


def remark(text: str) -> None:
    typer.echo(text, err=True)


def human_size(count: int) -> str:
    """Bytes as people read them: 91.7 MB."""
    size, units = float(count), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def human_count(count: int) -> str:
    """Of people's doings: 950, 12k, 3.4M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            value = count / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return str(count)


def human_time(seconds: float) -> str:
    """A time span in its two largest units: 3 h 12 min."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    told = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(told) or "0 s"
