"""How a service process lives: it runs until it is told to stop, or until its parent is gone."""

import asyncio
import os
import signal
import sys


def stop_event(*, exit_with_parent: bool = False) -> asyncio.Event:
    """An event set by SIGTERM or SIGINT, or, if asked, when standard input closes.

    A parent that holds the other end of our standard input need not live long enough to send a
    signal: the kernel closes the pipe for it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_parent:
        loop.add_reader(sys.stdin.fileno(), _read_until_closed, loop, stop)
    return stop


def _read_until_closed(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        stop.set()
