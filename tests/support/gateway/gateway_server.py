"""A gateway in this process on a real port."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import uvicorn

from atelier.config import Config
from gateway.http.uvicorn_server import GatewayServer, create_server, listen
from gateway.server import Gateway
from tests.support.gateway.documented_replies import RepliesChecked

PATIENCE = 10.0  # seconds that anything here may take


@contextlib.contextmanager
def short_directory() -> Any:
    """A directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="atl") as path:
        yield Path(path)


async def until(condition: Callable[[], Any]) -> None:
    """Return when the condition holds; looks again at every turn of the event loop."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it looks at has no events
            await asyncio.sleep(0.001)


class Registry(Protocol):
    """A scripted or a real registry."""

    @property
    def target(self) -> str: ...


class RunningGateway:
    """Its address, and its parts."""

    def __init__(self, gateway: Gateway, server: uvicorn.Server, port: int) -> None:
        self.gateway = gateway
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def client(self, **options: Any) -> httpx.AsyncClient:
        # No certificates: reading them takes longer than most tests.
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False, verify=False, **options)

    async def raw(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection on which these bytes were sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        return reader, writer


@contextlib.asynccontextmanager
async def running_gateway(registry: Registry, **options: Any) -> AsyncIterator[RunningGateway]:
    config = Config(**{"registry_address": registry.target, "port": 0, "shutdown_grace": 5, **options})
    gateway = Gateway(config)
    listener = listen(config)
    checked = RepliesChecked(gateway.app)
    server: GatewayServer = create_server(checked, config)
    await gateway.start()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    running = RunningGateway(gateway, server, listener.getsockname()[1])
    try:
        await until(lambda: server.started and gateway.watcher.has_snapshot)
        yield running
    finally:
        server.stop()
        gateway.admission.close()
        await asyncio.wait_for(serving, PATIENCE)
        await gateway.close()
    assert not checked.faults, "\n".join(checked.faults)


def client_of(gateway: Gateway) -> httpx.AsyncClient:
    """A client of the application alone, without a server around it."""
    transport = httpx.ASGITransport(gateway.app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=PATIENCE)


def post_bytes(path: str, body: Any, **headers: str) -> bytes:
    """A POST as it is on the wire."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def events_of(text: str) -> list[Any]:
    """The data of each server-sent event; what is not JSON as it is."""
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]
