"""How work in a thread is asked to stop."""

import threading


class Stopped(Exception):
    """The work was asked to stop; what it has done so far stays."""


def check(stop: threading.Event) -> None:
    """Raises Stopped if `stop` is set."""
    if stop.is_set():
        raise Stopped()
