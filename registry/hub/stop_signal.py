"""How work in a thread is told to stop."""

import threading


class Stopped(Exception):
    """Someone wants the work to end here; what it has done so far stays."""


def check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped()
