"""The MCP server's route: who may call it, how a call is cancelled, and two gateways for one client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import httpx2
import pytest
import structlog
from mcp import Client, MCPError

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, post_bytes, running_gateway, until
from tests.support.mcp.mcp_client import MODES, mcp_client

LONG = {"text": "word " * 100_000, "step_seconds": 0.001}
CHAT = {"model": KEY, "prompt": "go on"}
ACCEPT = "application/json, text/event-stream"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def active(registry: FakeRegistry) -> int:
    return registry.workers[KEY].engine.figures().active if KEY in registry.workers else 0


def in_work(gateway: RunningGateway) -> int:
    return gateway.gateway.admission.waiting + gateway.gateway.admission.active


@contextlib.asynccontextmanager
async def generating(mcp: Client, registry: FakeRegistry) -> AsyncIterator["asyncio.Task[Any]"]:
    """A call that would take minutes, once a worker runs it."""
    registry.script = LONG
    call = asyncio.create_task(mcp.call_tool("chat", CHAT))
    try:
        await until(lambda: active(registry) == 1)
        yield call
    finally:
        call.cancel()
        await asyncio.wait([call])


async def test_a_cancelled_call_frees_the_sequence(gateway: RunningGateway, registry: FakeRegistry, mode: str) -> None:
    async with mcp_client(gateway.url, mode) as mcp, generating(mcp, registry) as call:
        call.cancel()
        await until(lambda: active(registry) == 0)
        await until(lambda: in_work(gateway) == 0)
        assert (await mcp.list_tools()).tools  # the client can continue


async def test_a_cancelled_call_ends_the_wait_for_a_load(
    gateway: RunningGateway, registry: FakeRegistry, mode: str
) -> None:
    registry.hold_loads = True
    async with mcp_client(gateway.url, mode) as mcp:
        call = asyncio.create_task(mcp.call_tool("chat", CHAT))
        await asyncio.wait_for(registry.asked.wait(), PATIENCE)
        call.cancel()
        await asyncio.wait_for(registry.abandoned.wait(), PATIENCE)
        await until(lambda: in_work(gateway) == 0)
    registry.released.set()


async def test_a_disconnect_frees_the_sequence(gateway: RunningGateway, registry: FakeRegistry, mode: str) -> None:
    registry.script = LONG
    params: dict[str, Any] = {"name": "chat", "arguments": CHAT}
    headers = {"accept": ACCEPT, "content-type": "application/json"}
    if mode == "auto":
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params["_meta"] = meta
        headers |= {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "chat"}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    with structlog.testing.capture_logs() as lines:
        _, writer = await gateway.raw(post_bytes("/mcp", message, **named))
        await until(lambda: gateway.gateway.admission.active == 1)  # the worker has accepted it
        writer.close()
        await until(lambda: active(registry) == 0)
        await until(lambda: in_work(gateway) == 0)
        await until(lambda: [line for line in lines if line["event"] == "request"])
    (entry,) = [line for line in lines if line["event"] == "request"]
    assert (entry["model"], entry["prompt_tokens"]) == (KEY, 2)


async def test_another_client_cannot_cancel_a_call(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with (
        mcp_client(gateway.url, "legacy") as mcp,
        generating(mcp, registry),
        gateway.client(headers={"accept": ACCEPT}) as http,
    ):
        for request_id in range(10):
            params = {"requestId": request_id}
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            for headers in ({}, {"mcp-session-id": "guessed"}):
                assert (await http.post("/mcp", json=cancelled, headers=headers)).status_code == 202
        assert active(registry) == 1


async def test_a_server_that_stops_ends_calls_with_instructions(
    gateway: RunningGateway, registry: FakeRegistry, mode: str
) -> None:
    async with mcp_client(gateway.url, mode) as mcp, generating(mcp, registry) as call:
        await gateway.gateway.drain(0)
        result = await asyncio.wait_for(asyncio.shield(call), PATIENCE)
    assert result.is_error
    assert "send the request again" in result.content[0].text


async def test_only_a_handshake_returns_a_session_id(gateway: RunningGateway) -> None:
    headers = {"accept": ACCEPT}
    async with gateway.client(headers=headers) as http:
        names = [(await http.post("/mcp", json=INITIALIZE)).headers["mcp-session-id"] for _ in range(2)]
        assert len(set(names)) == 2
        again = await http.post("/mcp", json=INITIALIZE, headers={"mcp-session-id": "of another gateway"})
        assert (again.status_code, "mcp-session-id" in again.headers) == (200, False)
        modern = await http.post("/mcp", json=INITIALIZE, headers={"mcp-protocol-version": "2026-07-28"})
        assert "mcp-session-id" not in modern.headers
        assert (await http.get("/mcp")).status_code == 405
        assert (await http.delete("/mcp", headers={"mcp-session-id": names[0]})).status_code == 405


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}])
async def test_a_request_without_the_key_is_rejected(
    registry: FakeRegistry, mode: str, headers: dict[str, str]
) -> None:
    async with running_gateway(registry, api_key="right") as gateway:
        async with gateway.client(headers={"accept": ACCEPT, **headers}) as http:
            refused = await http.post("/mcp", json=INITIALIZE)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["error"]["data"] == {"code": "invalid_api_key"}
        with pytest.raises(BaseExceptionGroup) as failed:
            async with mcp_client(gateway.url, mode, headers=headers):
                pass
        assert failed.group_contains(MCPError, match="key")


@pytest.mark.parametrize("headers", [{"authorization": "Bearer right"}, {"x-api-key": "right"}])
async def test_a_request_with_the_key_is_accepted(registry: FakeRegistry, mode: str, headers: dict[str, str]) -> None:
    async with (
        running_gateway(registry, api_key="right") as gateway,
        mcp_client(gateway.url, mode, headers=headers) as mcp,
    ):
        assert (await mcp.list_tools()).tools


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}])
async def test_foreign_origins_and_hosts_are_forbidden(gateway: RunningGateway, headers: dict[str, str]) -> None:
    async with gateway.client(headers={"accept": ACCEPT, **headers}) as http:
        assert (await http.post("/mcp", json=INITIALIZE)).status_code == 403


async def test_an_allowed_web_page_can_read_its_session_id(registry: FakeRegistry) -> None:
    origin = "https://page.example"
    preflight_headers = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "mcp-protocol-version, mcp-method, mcp-name, mcp-session-id",
    }
    async with (
        running_gateway(registry, cors=origin) as gateway,
        gateway.client(headers={"accept": ACCEPT, "origin": origin}) as http,
    ):
        preflight = await http.options("/mcp", headers=preflight_headers)
        reply = await http.post("/mcp", json=INITIALIZE)
    assert (preflight.status_code, reply.status_code) == (200, 200)
    assert "mcp-session-id" in reply.headers["access-control-expose-headers"]


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"[" * 100_000, b'{"jsonrpc":"2.0","id":1}', b"\xff", b'{"jsonrpc":"2.0","id":{}}']
)
async def test_an_invalid_message_is_rejected(gateway: RunningGateway, body: bytes, version: str) -> None:
    headers = {"accept": ACCEPT, "content-type": "application/json", "mcp-protocol-version": version}
    async with gateway.client(headers=headers) as http:
        reply = await http.post("/mcp", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]


async def test_a_body_that_is_too_large_is_rejected(registry: FakeRegistry) -> None:
    async with (
        running_gateway(registry, body_limit_mb=0.001) as gateway,
        gateway.client(headers={"accept": ACCEPT}) as http,
    ):
        reply = await http.post("/mcp", json={**INITIALIZE, "more": "x" * 2000})
    assert reply.status_code == 413
    assert reply.json()["jsonrpc"] == "2.0"


async def test_a_call_is_counted_and_logged_with_its_model(gateway: RunningGateway, mode: str) -> None:
    async with mcp_client(gateway.url, mode) as mcp:
        await mcp.call_tool("chat", {"model": KEY, "prompt": "one two three"})
    async with gateway.client() as http:
        metrics = (await http.get("/metrics")).text
    assert f'atelier_completion_tokens_total{{model="{KEY}"}} 3.0' in metrics
    assert 'atelier_requests_total{route="/mcp",status="200"}' in metrics


class Balancer(httpx2.AsyncBaseTransport):
    """Sends each request to the next gateway."""

    def __init__(self, *gateways: RunningGateway) -> None:
        self._ports = cycle([gateway.port for gateway in gateways])
        self._inner = httpx2.AsyncHTTPTransport(verify=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(port=next(self._ports))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_any_gateway_answers_any_request_of_a_client(registry: FakeRegistry, mode: str) -> None:
    async with (
        running_gateway(registry) as first,
        running_gateway(registry) as second,
        mcp_client("http://127.0.0.1", mode, transport=Balancer(first, second)) as mcp,
    ):
        for _ in range(3):
            assert (await mcp.list_tools()).tools
            assert not (await mcp.call_tool("chat", {"model": KEY, "prompt": "one two"})).is_error
            assert (await mcp.list_resources()).resources
        registries = [gateway.gateway.metrics.registry for gateway in (first, second)]
        labels = {"route": "/mcp", "status": "200"}
        counted = [registry.get_sample_value("atelier_requests_total", labels) or 0 for registry in registries]
    assert min(counted) >= 4
