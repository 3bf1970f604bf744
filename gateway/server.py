"""The HTTP server around the application: its socket, and its end."""

import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from atelier.config import Config
from gateway.protocol import BoundedProtocol

BACKLOG = 2048


class CannotListen(Exception):
    """Says in one line why, and what to change."""


class Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: when to stop is the process's to say."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def create_server(app: ASGIApp, config: Config) -> Server:
    return Server(
        uvicorn.Config(
            app,
            host=config.host,
            http=BoundedProtocol,
            ws="none",
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
    """A server that others can reach needs a key, or somebody's word that it shall be open."""
    if not (_is_loopback(config.host) or config.api_key or config.allow_open):
        raise CannotListen(
            f"Other machines can reach {config.host or 'this server'}, so it needs a key: set ATELIER_API_KEY, "
            "or ATELIER_ALLOW_OPEN=true to let everyone in."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(config: Config) -> socket.socket:
    """A socket that listens; CannotListen when it cannot."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CannotListen(f"There is no address {config.host} to listen on: {error.strerror}.") from None
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(_reason(config, error)) from None
    listener.setblocking(False)
    return listener


def _reason(config: Config, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {config.port} is in use: set ATELIER_PORT, or stop the program that listens there."
    return f"Cannot listen on {config.host}, port {config.port}: {error.strerror}."
