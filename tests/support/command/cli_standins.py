"""Stand-ins for the registry and the gateway: as quick as possible, with the behaviour that `serve` relies on.

Each logs its events as JSON lines, as the services do: `started` with its process id and what its
environment says, and `stopping` once it is asked to stop.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from atelier.cli.readiness import until
from atelier.config import Config
from atelier.lifecycle import stop_event

REPOSITORY = Path(__file__).parents[3]
DEAF, LOUD, BROKEN = "deaf", "loud", "broken"  # the values of STANDIN_REGISTRY and STANDIN_GATEWAY


def standin_environment(directory: Path) -> dict[str, str]:
    """An environment in which `python -m registry` and `python -m gateway` are the stand-ins."""
    for name in ("registry", "gateway"):
        (directory / f"{name}.py").write_text(f"from tests.support.command.cli_standins import {name}\n{name}()\n")
    return {"PYTHONPATH": f"{directory}:{REPOSITORY}"}


def log(event: str, level: str = "info", **fields: object) -> None:
    sys.stderr.write(json.dumps({"event": event, "level": level, **fields}) + "\n")
    sys.stderr.flush()


def log_start() -> None:
    token = os.environ["ATELIER_REGISTRY_TOKEN"]
    digest = hashlib.sha256(token.encode()).hexdigest()
    log("started", pid=os.getpid(), has_key="ATELIER_API_KEY" in os.environ, token=digest)


def registry_socket() -> Path:
    return Path(Config().registry_target.removeprefix("unix:"))


def turn_deaf() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, log, "deaf")


def registry() -> None:
    asyncio.run(_registry())


async def _registry() -> None:
    mode = os.environ.get("STANDIN_REGISTRY")
    stop = stop_event(exit_with_parent="--exit-with-parent" in sys.argv)
    log_start()
    if mode == DEAF:
        turn_deaf()
    if mode == LOUD:
        log("worker_stalled", "warning", instance="lab/tiny")
    async with await asyncio.start_unix_server(lambda reader, writer: None, registry_socket()):
        await stop.wait()
        log("stopping")


def gateway() -> None:
    mode = os.environ.get("STANDIN_GATEWAY")
    if mode == BROKEN:
        sys.exit("the gateway is broken")
    asyncio.run(_gateway(mode))


async def _gateway(mode: str | None) -> None:
    stop = stop_event(exit_with_parent="--exit-with-parent" in sys.argv)
    config = Config()
    await asyncio.wait_for(until(registry_listens), 20)
    http = ThreadingHTTPServer((config.host, config.port), _Answers)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    log_start()
    if mode == DEAF:
        turn_deaf()
    await stop.wait()
    log("stopping")
    http.server_close()


async def registry_listens() -> bool:
    return registry_socket().exists()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"models": [{"key": "lab/tiny"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
