"""A service process runs until it receives a signal to stop, or until its parent process ends."""

import asyncio
import os
import signal
import sys


def stop_event(*, exit_with_parent: bool = False) -> asyncio.Event:
    """An event set by SIGTERM or SIGINT and, with `exit_with_parent`, when standard input closes.

    A parent that is killed cannot send a signal, but the kernel closes its end of the pipe to our standard input.
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
