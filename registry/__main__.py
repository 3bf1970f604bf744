"""`python -m registry`: keeps models and instances until it is told to stop."""

import argparse
import asyncio
import sys

import structlog
from pydantic import ValidationError

from atelier.config import Config
from atelier.errors import AtelierError
from atelier.lifecycle import stop_event
from atelier.logs import configure_logs
from registry.home_lock import HomeInUse, hold_home
from registry.instances.launcher import LocalLauncher
from registry.server import CannotServe, open_server

_log = structlog.get_logger(__name__)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m registry", description=__doc__)
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input is closed")
    exit_with_parent = parser.parse_args().exit_with_parent
    try:
        config = Config()
        configure_logs(config, "registry")
        with hold_home(config.home):
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


if __name__ == "__main__":
    sys.exit(main())
