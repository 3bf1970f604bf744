"""MCP servers over HTTP on 127.0.0.1: made with the SDK, and ones that answer any bytes."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.support.gateway.gateway_server import PATIENCE, until


@asynccontextmanager
async def served(app: Any, port: int = 0) -> AsyncIterator[str]:
    """An ASGI application; yields its address."""
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, PATIENCE)


@dataclass(slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any = None

    @property
    def method_name(self) -> str:
        """MCP's."""
        return self.body["method"] if self.body else ""


Write = Callable[[bytes], Awaitable[None]]
Answer = Callable[[Request, Write], Awaitable[None]]


@dataclass(slots=True)
class OddServer:
    """Answers the handshake itself, and everything else as the test sets it. `requests`: those received."""

    answer: Answer
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["OddServer"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _read(reader)
            self.requests.append(request)
            if (reply := _handshake(request)) is not None:
                await write(reply)
            else:
                await self.answer(request, write)
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, json.loads(body) if body else None)


def reply(body: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", "connection: close"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def result_of(request: Request, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request.body["id"], "result": result}).encode()


def _handshake(request: Request) -> bytes | None:
    if request.method != "POST":
        return reply(b"", status="405 Method Not Allowed")
    match request.body.get("method"):
        case "server/discover":
            error = {"jsonrpc": "2.0", "id": request.body["id"], "error": {"code": -32601, "message": "no"}}
            return reply(json.dumps(error).encode())
        case "initialize":
            info = {"name": "odd", "version": "1"}
            initialized = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            return reply(result_of(request, initialized))
        case "notifications/initialized" | "notifications/cancelled":
            return reply(b"", status="202 Accepted")
        case "tools/list":
            tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
            return reply(result_of(request, {"tools": tools}))
    return None
