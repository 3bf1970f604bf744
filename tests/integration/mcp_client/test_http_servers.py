"""Connections to MCP servers over HTTP: one made with the SDK, and misbehaving ones."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from structlog.testing import capture_logs

from atelier.errors import MCPConnectionError
from gateway.core.mcp_server_config import Endpoint, ServerConfig
from gateway.core.outbound import AddressGuard, resolve_name
from gateway.tools.mcp_client.connection_pool import ServerPool
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from tests.integration.mcp_client.test_pool import pool_of, refused, within_memory
from tests.support.gateway.gateway_server import until
from tests.support.mcp.http_mcp_servers import OddServer, Request, Write, reply, result_of, served


def at(url: str, *headers: tuple[str, str], **more: Any) -> ServerConfig:
    return ServerConfig("odd", Endpoint(url, headers), **more)


def sdk_server() -> MCPServer:
    server = MCPServer("calculator")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    @server.tool()
    async def count(context: Context[Any, Any]) -> str:
        for number in range(3):
            await context.report_progress(number, 3, "counting")
        return "counted"

    return server


@pytest.mark.parametrize("options", [{}, {"json_response": True}, {"stateless_http": True}])
async def test_a_server_made_with_the_sdk_works(options: dict[str, Any]) -> None:
    async with served(sdk_server().streamable_http_app(**options)) as url, pool_of() as pool:
        server = at(f"{url}/mcp")
        tools = {tool.name: tool for tool in await pool.tools(server)}
        assert tools["add"].description == "Adds."
        assert tools["add"].parameters["required"] == ["a", "b"]
        result = await pool.call(server, "add", {"a": 2, "b": 3})
        assert (result.text, result.is_error) == ("5", False)
        assert (await pool.call(server, "add", {"a": "x"})).is_error
        assert pool.protocol(server) >= "2025-11-25"


async def test_newer_servers_announce_changed_tools() -> None:
    server = sdk_server()

    @server.tool()
    async def grow(context: Context[Any, Any]) -> str:
        server.add_tool(lambda: "new", name="new")
        await context.notify_tools_changed()
        return "grown"

    async with served(server.streamable_http_app()) as url, pool_of() as pool:
        at_url = at(f"{url}/mcp")
        assert "new" not in {tool.name for tool in await pool.tools(at_url)}
        await pool.call(at_url, "grow", {})
        async with asyncio.timeout(5):
            while "new" not in {tool.name for tool in await pool.tools(at_url)}:
                pass


async def test_a_restarted_server_is_found_again() -> None:
    app = sdk_server().streamable_http_app
    async with pool_of() as pool:
        async with served(app()) as url:
            server = at(f"{url}/mcp")
            await pool.call(server, "add", {"a": 1, "b": 1})
        await refused(pool.call(server, "add", {"a": 1, "b": 1}))
        async with served(app(), int(url.rsplit(":", 1)[1])):
            assert (await pool.call(server, "add", {"a": 1, "b": 1})).text == "2"


class Sessions:
    """Forgets its first session once a call is made in it."""

    def __init__(self) -> None:
        self.forgotten = False

    async def __call__(self, request: Request, write: Write) -> None:
        if not self.forgotten:
            self.forgotten = True
            await write(reply(b"", status="404 Not Found"))
        else:
            await write(reply(result_of(request, {"content": [{"type": "text", "text": "here"}]})))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faulty servers that open a session."""
    import tests.support.mcp.http_mcp_servers as servers

    plain = servers._handshake

    def with_session(request: Request) -> bytes | None:
        answer = plain(request)
        if answer is not None and request.body and request.body["method"] == "initialize":
            return answer.replace(b"connection: close", b"connection: close\r\nmcp-session-id: s")
        return answer

    monkeypatch.setattr(servers, "_handshake", with_session)


@pytest.mark.usefixtures("sessions")
async def test_a_lost_session_is_reopened() -> None:
    async with OddServer(Sessions()).running() as odd, pool_of() as pool:
        assert (await pool.call(at(odd.url), "echo", {})).text == "here"


@pytest.mark.usefixtures("sessions")
async def test_a_session_lost_in_one_call_does_not_repeat_other_calls() -> None:
    """The other call may have had its effect already."""
    paid, over = asyncio.Event(), asyncio.Event()

    async def pay_or_forget(request: Request, write: Write) -> None:
        if request.body["params"]["arguments"].get("pay"):
            paid.set()
            await over.wait()
        await write(reply(b"", status="404 Not Found"))

    async with OddServer(pay_or_forget).running() as odd, pool_of() as pool:
        paying = asyncio.create_task(pool.call(at(odd.url), "echo", {"pay": True}))
        await paid.wait()
        await refused(pool.call(at(odd.url), "echo", {}))
        await refused(paying)
        calls = [each.body["params"]["arguments"] for each in odd.requests if each.method_name == "tools/call"]
        assert calls.count({"pay": True}) == 1
        over.set()


@pytest.mark.usefixtures("sessions")
async def test_arguments_that_a_server_rejects_do_not_affect_other_calls() -> None:
    release = asyncio.Event()

    async def check(request: Request, write: Write) -> None:
        if request.body["params"]["arguments"]:
            error = {"jsonrpc": "2.0", "id": request.body["id"], "error": {"code": -32602, "message": "not so"}}
            await write(reply(json.dumps(error).encode(), status="400 Bad Request"))
            return
        await release.wait()
        await write(reply(result_of(request, {"content": [{"type": "text", "text": "well"}]})))

    async with OddServer(check).running() as odd, pool_of() as pool:
        other = asyncio.create_task(pool.call(at(odd.url), "echo", {}))
        await until(lambda: "tools/call" in [each.method_name for each in odd.requests])
        assert (await pool.call(at(odd.url), "echo", {"a": 1})).text == "not so"
        release.set()
        assert (await other).text == "well"


async def endless_body(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
    while True:
        await write(b" " * 65536)


async def endless_event(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: ")
    while True:
        await write(b"x" * 65536)


async def packed(request: Request, write: Write) -> None:
    await write(reply(gzip.compress(b" " * 2**26), "content-encoding: gzip"))


async def many_values(request: Request, write: Write) -> None:
    await write(reply(b"[" + b"[]," * 1_000_000 + b"[]]"))


async def web_page(request: Request, write: Write) -> None:
    await write(reply(b"<html>", kind="text/html"))


async def broken_off(request: Request, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")


@pytest.mark.parametrize("answer", [endless_body, endless_event, packed, many_values, web_page, broken_off])
async def test_an_invalid_reply_costs_little_memory_and_the_next_call_works(answer: Any) -> None:
    turns = [answer]

    async def once(request: Request, write: Write) -> None:
        if turns:
            await turns.pop()(request, write)
        else:
            await write(reply(result_of(request, {"content": [{"type": "text", "text": "well"}]})))

    async with OddServer(once).running() as odd, pool_of(message=2**20) as pool:
        await within_memory(lambda: failed(pool, at(odd.url)), 30)
        assert (await pool.call(at(odd.url), "echo", {})).text == "well"


async def failed(pool: ServerPool, server: ServerConfig) -> None:
    with contextlib.suppress(MCPConnectionError):
        assert (await pool.call(server, "echo", {})).is_error


async def test_a_long_event_stream_is_read_however_it_is_split() -> None:
    async def line_by_line(request: Request, write: Write) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        await write(f"{head}connection: close\r\n\r\n".encode())

        async def chunk(data: bytes) -> None:
            await write(b"%x\r\n%b\r\n" % (len(data), data))

        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 1000}}
        for message in [json.dumps(note).encode()] * 100 + [result_of(request, {"content": []})]:
            await chunk(b"data: " + message + b"\n")
            await chunk(b"\n")
        await chunk(b"")

    async with OddServer(line_by_line).running() as odd, pool_of(message=20_000) as pool:
        assert not (await pool.call(at(odd.url), "echo", {})).is_error


async def test_endless_events_cost_no_more_than_a_call() -> None:
    async def flood(request: Request, write: Write) -> None:
        await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        while True:
            await write(f"data: {json.dumps(note)}\n\n".encode() * 100)

    async with OddServer(flood).running() as odd, pool_of(messages_a_second=50) as pool:
        await within_memory(lambda: refused(pool.call(at(odd.url, call_seconds=0.5), "echo", {})), 30)


async def test_a_server_that_rejects_the_key_is_reported() -> None:
    async def forbid(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async with served(forbid) as url, pool_of() as pool:
        assert "HTTP 401" in await refused(pool.tools(at(url)))


async def test_an_invalid_header_is_not_disclosed() -> None:
    """A key read from a file has a line feed at its end."""
    async with OddServer(web_page).running() as odd, pool_of() as pool:
        with capture_logs() as logs:
            message = await refused(pool.tools(at(odd.url, ("Authorization", "Bearer s3cr3t\n"))))
        assert "one of the headers" in message
        assert "s3cr3t" not in message + str(logs)


async def test_a_failing_server_is_distinguished_from_a_failing_tool() -> None:
    async def fail(request: Request, write: Write) -> None:
        await write(reply(b"oh", status="500 Internal Server Error", kind="text/plain"))

    async with OddServer(fail).running() as odd, pool_of() as pool:
        assert "HTTP 500" in await refused(pool.call(at(odd.url), "echo", {}))


async def test_headers_are_sent_to_the_endpoint_only() -> None:
    async def echo(request: Request, write: Write) -> None:
        await write(reply(result_of(request, {"content": []})))

    async with OddServer(echo).running() as other, pool_of() as pool:

        async def lead_away(request: Request, write: Write) -> None:
            await write(reply(b"", f"location: {other.url}/mcp", status="307 Temporary Redirect"))

        async with OddServer(lead_away).running() as odd:
            server = at(odd.url, ("Authorization", "Bearer secret"))
            result = await pool.call(server, "echo", {})
            assert result.is_error
            assert "Redirect" in result.text
        assert odd.requests[-1].headers["authorization"] == "Bearer secret"
        assert not other.requests


async def names(host: str, port: int) -> list[str]:
    known = {"inner.example": ["127.0.0.1"], "both.example": ["93.184.215.14", "10.0.0.1"]}
    return known.get(host) or await resolve_name(host, port)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/mcp", "http://[::1]/mcp", "http://localhost/mcp", "http://inner.example/mcp"),
        *("http://both.example/mcp", "http://inner.example:8080/mcp", "http://2130706433/mcp", "ftp://inner.example/"),
    ],
)
async def test_servers_named_in_requests_must_have_public_addresses(url: str) -> None:
    pool = ServerPool(AddressGuard(resolve=names), limits=PoolLimits())
    message = await refused(pool.tools(ServerConfig("odd", Endpoint(url, public_only=True), owner="k")))
    assert "its URL is not allowed" in message
    await pool.close()


async def test_a_name_is_reached_at_the_checked_address() -> None:
    """The operator allows the name here; it leads to the checked address, and the server sees the name."""

    async def echo(request: Request, write: Write) -> None:
        await write(reply(result_of(request, {"content": []})))

    async with OddServer(echo).running() as odd:
        port = int(odd.url.rsplit(":", 1)[1])
        pool = ServerPool(AddressGuard([f"inner.example:{port}"], resolve=names), limits=PoolLimits())
        server = ServerConfig("odd", Endpoint(f"http://inner.example:{port}/mcp", public_only=True), owner="k")
        await pool.call(server, "echo", {})
        assert odd.requests[-1].headers["host"] == f"inner.example:{port}"
        await pool.close()


async def test_connections_to_servers_named_in_requests_are_limited() -> None:
    release = asyncio.Event()

    async def wait(request: Request, write: Write) -> None:
        await release.wait()
        await write(reply(result_of(request, {"content": []})))

    def guests(odd: OddServer, owners: Sequence[str]) -> list[ServerConfig]:
        return [ServerConfig("odd", Endpoint(odd.url, public_only=True), owner=owner) for owner in owners]

    async with OddServer(wait).running() as odd:
        guard = AddressGuard([odd.url.removeprefix("http://")])
        pool = ServerPool(guard, limits=PoolLimits(guests=2))
        first, second, third = guests(odd, "abc")
        await pool.tools(first)
        await pool.tools(second)
        await pool.tools(third)  # the first is closed
        assert [pool.state(server) for server in (first, second, third)] == ["closed", "open", "open"]
        calls = [asyncio.create_task(pool.call(server, "echo", {})) for server in (second, third)]
        await until(
            lambda: sum(request.body["method"] == "tools/call" for request in odd.requests if request.body) == 2
        )
        assert "too many servers" in await refused(pool.tools(first))
        release.set()
        await asyncio.gather(*calls)
        await pool.tools(first)
        await pool.close()
