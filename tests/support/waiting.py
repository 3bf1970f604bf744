"""Waiting for states without events: another process's state, observed from outside."""

import time
from collections.abc import Callable


def reaches(condition: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether the condition becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
