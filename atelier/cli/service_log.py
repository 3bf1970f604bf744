"""The services' log files: everything goes there; warnings are also told on the terminal."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atelier.log_file import read_new, set_aside_if_larger, tail

POLL_SECONDS = 0.25
KEPT_BYTES = 20 * 2**20  # a larger file is set aside when the server starts
TOLD_LEVELS = ("warning", "error", "critical")
BOOKKEEPING = ("level", "timestamp", "service", "event", "exception")


def set_aside_if_large(path: Path) -> None:
    set_aside_if_larger(path, KEPT_BYTES)


def last_line(path: Path) -> str:
    """What the service wrote last, told for people."""
    written = tail(path)
    return told(written[-1]) or written[-1].strip() if written else ""


async def tell_warnings(name: str, path: Path, say: Callable[[str], None]) -> None:
    """Say each warning and error that the service logs from now on. Runs until cancelled.

    The file is read rather than a pipe: a pipe would hold the services up, or break them, when
    this process is suspended or killed.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        unfinished = b""
        while True:
            *lines, unfinished = (unfinished + read_new(file)).split(b"\n")
            for line in lines:
                if words := warning_in(line.decode(errors="replace")):
                    say(f"{name}: {words}")
            await asyncio.sleep(POLL_SECONDS)


def warning_in(line: str) -> str:
    """The record in words, if it is a warning or worse; "" otherwise."""
    record = _record(line)
    return _words(record) if record.get("level") in TOLD_LEVELS else ""


def told(line: str) -> str:
    """Any record in words; "" for a line that is none."""
    return _words(_record(line))


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _words(record: dict[str, Any]) -> str:
    if "event" not in record:
        return ""
    fields = [f"{name}={value}" for name, value in record.items() if name not in BOOKKEEPING]
    cause = str(record.get("exception", "")).strip().rpartition("\n")[2]
    return " ".join([str(record["event"]), *fields, *([f"({cause})"] if cause else [])])
