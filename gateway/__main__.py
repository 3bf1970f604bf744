"""`python -m gateway`: HTTP in, gRPC out."""

import argparse
import asyncio
import sys

import structlog
import uvloop
from pydantic import ValidationError

from atelier.config import Config
from atelier.lifecycle import stop_event
from atelier.logs import configure_logs
from gateway.http.uvicorn_server import CannotListen, check_exposure, create_server, listen
from gateway.server import Gateway

_log = structlog.get_logger(__name__)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input closes")
    arguments = parser.parse_args()
    try:
        config = Config()
        configure_logs(config, "gateway")
        check_exposure(config)
        uvloop.run(serve(config, exit_with_parent=arguments.exit_with_parent))
    except CannotListen as reason:
        return refuse(str(reason))
    except ValidationError as error:
        return refuse(wrong_setting(error))
    return 0


def refuse(reason: str) -> int:
    print(f"gateway: {reason}", file=sys.stderr)
    return 1


def wrong_setting(error: ValidationError) -> str:
    """The first variable at fault and why; not its value, which may be a secret."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"ATELIER_{str(fault['loc'][0]).upper()}: {fault['msg']}"


async def serve(config: Config, *, exit_with_parent: bool) -> None:
    stop = stop_event(exit_with_parent=exit_with_parent)
    listener = listen(config)
    gateway = Gateway(config)
    server = create_server(gateway.app, config)
    await gateway.start()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    serving.add_done_callback(lambda _: stop.set())  # it ends by itself only when something is wrong
    _log.info("gateway_listening", host=config.host, port=listener.getsockname()[1])

    await stop.wait()
    await gateway.drain(config.shutdown_grace)
    server.stop()
    await serving
    await gateway.close()
    _log.info("gateway_stopped")


if __name__ == "__main__":
    sys.exit(main())
