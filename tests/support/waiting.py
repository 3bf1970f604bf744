"""Waiting for what gives no event: another process's state, seen from outside."""

import time
from collections.abc import Callable


def reaches(condition: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
