"""For how long a model stays loaded, as Ollama's clients say it: seconds, or a duration of Go's. Pure."""

import re

from atelier.errors import InvalidRequest
from gateway.dialects.body_base import LONGEST_TTL

UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
DURATION = re.compile(rf"([+-]?)(0|(?:{PART.pattern})+)")

FOREVER = -1.0
# What is unloaded after its answer gets this long between the end of its load and the request's arrival.
SOON = 1.0


def idle_seconds(keep_alive: float | str | None) -> float | None:
    """As the core takes it: seconds without work, negative for ever, None as usual."""
    if keep_alive is None:
        return None
    seconds = _seconds(keep_alive)
    return FOREVER if seconds < 0 or seconds > LONGEST_TTL else max(seconds, SOON)


def asks_to_unload(keep_alive: float | str | None) -> bool:
    return keep_alive is not None and _seconds(keep_alive) == 0


def duration_seconds(text: str) -> float:
    """5400 for "1h30m"; https://pkg.go.dev/time#ParseDuration has the format."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequest('keep_alive: must be seconds, or a duration such as "5m" or "1h30m"', param="keep_alive")
    seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in PART.findall(match[2]))
    return -seconds if match[1] == "-" else seconds


def _seconds(keep_alive: float | str) -> float:
    return duration_seconds(keep_alive) if isinstance(keep_alive, str) else keep_alive
