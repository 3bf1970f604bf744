"""`python -m registry`: runs the registry until it is stopped."""

import argparse
import asyncio
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from atelier.config import Config
from atelier.errors import AtelierError
from atelier.lifecycle import stop_event
from atelier.logs import configure_logs
from registry.instances.launcher import LocalLauncher
from registry.server import CannotServe, open_server


class HomeInUse(Exception):
    """Another registry runs on this home."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m registry", description=__doc__)
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input is closed")
    exit_with_parent = parser.parse_args().exit_with_parent
    try:
        config = Config()
        configure_logs(config, "registry")
        with lock_home(config.home):
            asyncio.run(serve(config, exit_with_parent=exit_with_parent))
    except (HomeInUse, CannotServe, AtelierError, OSError, ValidationError) as error:
        print(f"registry: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(config: Config, *, exit_with_parent: bool) -> None:
    stop = stop_event(exit_with_parent=exit_with_parent)
    server = await open_server(config, LocalLauncher(config))
    try:
        await server.start()
        await stop.wait()
    finally:
        await server.drain()


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Lock the home for this process; the kernel releases it when the process ends. Raises HomeInUse."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(home / "registry.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, home)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, home: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise HomeInUse(
            f"Another registry (process {holder}) already runs on {home}. Stop it, or set ATELIER_HOME to another "
            "directory."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
