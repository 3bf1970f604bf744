"""The HTTP server around the application, and its listening socket."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from atelier.config import Config
from atelier.hosts import exposure_fault, listen_fault, unknown_host
from gateway.http.bounded_protocols import BoundedProtocol, BoundedSocket

BACKLOG = 2048
DATE_TICK = 0  # a tick number at which uvicorn renews the Date header
DATE_SECONDS = 1.0
PING_SECONDS = 20.0  # between pings of a WebSocket's client
PONG_SECONDS = 60.0  # for its pong: a client may be busy computing


class CannotListen(Exception):
    """The message says in one line why, and what to change."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process stops it with `stop`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Wakes once a second. uvicorn's own wakes ten times a second to check whether to stop, even when idle."""
        while not await self.on_tick(DATE_TICK):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), DATE_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def create_server(app: ASGIApp, config: Config) -> GatewayServer:
    return GatewayServer(
        uvicorn.Config(
            app,
            host=config.host,
            http=BoundedProtocol,
            ws=BoundedSocket,
            ws_max_size=int(config.body_limit_mb * 2**20),
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PONG_SECONDS,
            ws_per_message_deflate=False,  # a small message could decompress to a large one
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            backlog=BACKLOG,
        )
    )


def check_exposure(config: Config) -> None:
    """Raises CannotListen when other machines could reach the server without a key."""
    fault = exposure_fault(config.host, has_key=config.api_key is not None, allow_open=config.allow_open)
    if fault:
        raise CannotListen(fault)


def listen(config: Config) -> socket.socket:
    """A listening socket. Raises CannotListen."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise CannotListen(unknown_host(config.host)) from None
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(listen_fault(config.host, config.port, error)) from None
    listener.setblocking(False)
    return listener
