"""The services' log files: they get every record; warnings and errors are also shown on the terminal."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from atelier.json_types import Json
from atelier.log_file import read_new, set_aside_if_larger, tail

POLL_SECONDS = 0.25
KEPT_BYTES = 20 * 2**20  # a larger file is set aside when the server starts
SHOWN_LEVELS = ("warning", "error", "critical")
BOOKKEEPING = ("level", "timestamp", "service", "event", "exception")


def set_aside_if_large(path: Path) -> None:
    set_aside_if_larger(path, KEPT_BYTES)


def last_line(path: Path) -> str:
    """The last line of the log in readable form; "" when there is none."""
    written = tail(path)
    return readable_record(written[-1]) or written[-1].strip() if written else ""


async def show_warnings(name: str, path: Path, say: Callable[[str], None]) -> None:
    """Pass each warning and error that the service logs from now on to `say`. Runs until cancelled.

    The log is read from its file: a pipe would block or break the services when this process is suspended or killed.
    """
    with path.open("rb") as file:
        file.seek(0, 2)
        unfinished = b""
        while True:
            *lines, unfinished = (unfinished + read_new(file)).split(b"\n")
            for line in lines:
                if text := warning_in(line.decode(errors="replace")):
                    say(f"{name}: {text}")
            await asyncio.sleep(POLL_SECONDS)


def warning_in(line: str) -> str:
    """The record in readable form if it is a warning or an error; otherwise ""."""
    record = _record(line)
    return _readable(record) if record.get("level") in SHOWN_LEVELS else ""


def readable_record(line: str) -> str:
    """A record of any level in readable form; "" for a line that is not a record."""
    return _readable(_record(line))


def _record(line: str) -> Json:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _readable(record: Json) -> str:
    if "event" not in record:
        return ""
    fields = [f"{name}={value}" for name, value in record.items() if name not in BOOKKEEPING]
    cause = str(record.get("exception", "")).strip().rpartition("\n")[2]
    return " ".join([str(record["event"]), *fields, *([f"({cause})"] if cause else [])])
