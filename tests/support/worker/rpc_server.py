"""This machine's CPU, offered by a real RPC server process as another machine's device."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

START_SECONDS = 60


@contextmanager
def lending() -> Iterator[str]:
    """The address of a server that answers; it is ended afterwards."""
    address = f"127.0.0.1:{_free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "--lend", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    host, _, port = address.partition(":")
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)  # a listening socket is no event that one could wait for
        else:
            return
    raise RuntimeError(f"no RPC server at {address}")
