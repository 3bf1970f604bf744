"""HTTP itself: ids, keys, hosts, sizes, CORS, metrics."""

import asyncio
import contextlib
import json
import threading
from typing import Any

import pytest
import structlog

from atelier.config import Config
from gateway.dialects.body import parse
from gateway.http.uvicorn_server import BoundedProtocol
from gateway.server import Gateway
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, client_of, post_bytes, running_gateway, until

CHAT = {"model": KEY, "messages": [{"role": "user", "content": "one two three"}]}


async def reply_to(gateway: RunningGateway, request: bytes) -> bytes:
    reader, writer = await gateway.raw(request)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()


async def write_forever(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    while True:
        writer.write(chunk)
        await writer.drain()


async def test_every_reply_carries_the_requests_id(gateway: RunningGateway) -> None:
    async with gateway.client(headers={"x-request-id": "mine-1.2_3"}) as http:
        stream = {**CHAT, "stream": True}
        replies = [
            await http.get("/v1/models"),
            await http.get("/nowhere"),
            await http.post("/v1/chat/completions", json=stream),
            await http.get("/healthz", headers={"host": "evil.example"}),
        ]
        assert [reply.headers["x-request-id"] for reply in replies] == ["mine-1.2_3"] * 4
        assert [reply.status_code for reply in replies] == [200, 404, 200, 403]
        made_up = [(await http.get("/healthz", headers={"x-request-id": "a b"})).headers["x-request-id"] for _ in "ab"]
    assert all(each.startswith("req_") for each in made_up)
    assert made_up[0] != made_up[1]


async def test_the_server_does_not_disclose_its_software(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        assert "server" not in (await http.get("/healthz")).headers


async def test_an_unexpected_error_is_a_500_without_details(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("gateway.core.inference.make_plan", explode)
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in reply.text
    assert reply.headers["x-request-id"]


async def test_with_a_key_only_health_is_public(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway, gateway.client() as http:
        paths = ["/healthz", "/readyz", "/metrics", "/v1/models", "/docs", "/openapi.json", "/nowhere"]
        assert [(await http.get(path)).status_code for path in paths] == [200, 200, 401, 401, 401, 401, 401]
        headers = {"authorization": "Bearer secret"}
        assert [(await http.get(path, headers=headers)).status_code for path in paths] == [200] * 6 + [404]
        assert (await http.get("/metrics", headers={"x-api-key": "secret"})).status_code == 200


async def test_cors_is_off_or_for_named_origins(gateway: RunningGateway, registry: FakeRegistry) -> None:
    asks = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    async with gateway.client() as http:
        assert "access-control-allow-origin" not in (await http.get("/v1/models", headers=asks)).headers
    async with (
        running_gateway(registry, cors=["https://chat.example"], api_key="secret") as open_gateway,
        open_gateway.client() as http,
    ):
        preflight = await http.options("/v1/models", headers=asks)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, asks["origin"])
        assert "access-control-allow-credentials" not in preflight.headers
        refused = await http.get("/v1/models", headers=asks)  # the page may read the error
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, asks["origin"])
        stranger = await http.get("/v1/models", headers={**asks, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/models/load", "/api/v1/models/import"])
async def test_a_page_of_another_origin_changes_nothing(
    gateway: RunningGateway, registry: FakeRegistry, path: str
) -> None:
    unasked = {"origin": "https://evil.example", "content-type": "text/plain"}  # sent without a preflight
    body = {**CHAT, "path": "/etc/passwd"}
    async with gateway.client() as http:
        reply = await http.post(path, content=json.dumps(body), headers=unasked)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")
    assert (registry.ensured, registry.created, registry.imported) == ([], [], [])


async def test_allowed_origins_and_our_own_may_post(registry: FakeRegistry) -> None:
    async with running_gateway(registry, cors=["https://chat.example"]) as gateway, gateway.client() as http:
        for origin in ("https://chat.example", gateway.url):
            reply = await http.post("/v1/chat/completions", json=CHAT, headers={"origin": origin})
            assert reply.status_code == 200


async def test_a_body_beyond_the_limit_is_rejected_at_once(registry: FakeRegistry) -> None:
    async with running_gateway(registry, body_limit_mb=0.5) as gateway:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        reply = await reply_to(gateway, head + b"Content-Length: 99999999\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        chunked = await reply_to(gateway, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 10)
        async with gateway.client() as http:
            assert (await http.get("/healthz")).status_code == 200
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"payload_too_large"' in reply
    assert chunked.startswith(b"HTTP/1.1 413 ")


async def test_headers_beyond_the_limit_are_rejected(gateway: RunningGateway) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    endless = await reply_to(gateway, head + b"X-Long: " + b"x" * 100_000)
    whole = await reply_to(gateway, head + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n")
    assert endless.startswith(b"HTTP/1.1 431 ")
    assert whole.startswith(b"HTTP/1.1 431 ")
    many = b"".join(b"Range: bytes=%d-\r\n" % number for number in range(10_000))
    assert (await reply_to(gateway, head + many + b"\r\n")).startswith(b"HTTP/1.1 431 ")
    async with gateway.client() as http:
        assert (await http.get("/healthz")).status_code == 200


CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(("opening", "more"), [(b"", b"X-More: yes\r\n" * 4096), (b"X-More: ", b"x" * 65536)])
async def test_endless_trailers_are_cut_off(gateway: RunningGateway, opening: bytes, more: bytes) -> None:
    _, writer = await gateway.raw(CHUNKED + b"1\r\n{\r\n0\r\n" + opening)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(write_forever(writer, more), PATIENCE)
    writer.close()


async def test_a_body_in_many_small_chunks_with_trailers_is_read(gateway: RunningGateway) -> None:
    content = json.dumps({**CHAT, "user": "x" * 40_000}).encode()  # framing and body are beyond a head's limit
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in content)
    closing = CHUNKED.replace(b"Host:", b"Connection: close\r\nHost:")
    reply = await reply_to(gateway, closing + chunks + b"0\r\nX-Checksum: 1\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 ")


async def test_an_endless_body_is_cut_off_after_the_answer(gateway: RunningGateway) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await gateway.raw(head)
    assert (await asyncio.wait_for(reader.readline(), PATIENCE)).startswith(b"HTTP/1.1 404 ")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(write_forever(writer, chunk), PATIENCE)
    writer.close()


async def test_pipelined_requests_are_answered_in_order(gateway: RunningGateway) -> None:
    two = post_bytes("/v1/chat/completions", CHAT) + post_bytes("/v1/chat/completions", CHAT, Connection="close")
    assert (await reply_to(gateway, two)).count(b'"content":"one two three"') == 2


@pytest.mark.parametrize("request_line", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\0\0\0\0\r\n\r\n"])
async def test_invalid_http_is_a_400(gateway: RunningGateway, request_line: bytes) -> None:
    assert (await reply_to(gateway, request_line)).startswith(b"HTTP/1.1 400 ")


async def test_metrics_are_labelled_with_declared_paths_only(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        await http.get("/v1/models/acme/tiny")
        await http.get("/v1/models/../../etc/passwd%00")
        await http.get("/nowhere/secret-path")
        await http.post("/v1/chat/completions", json=CHAT)
        text = (await http.get("/metrics")).text
    assert 'atelier_requests_total{route="/v1/models/{id:path}",status="200"} 1.0' in text
    assert 'atelier_requests_total{route="unmatched",status="404"} 2.0' in text
    assert "secret-path" not in text
    assert 'atelier_completion_tokens_total{model="acme/tiny"} 3.0' in text
    assert 'atelier_time_to_first_token_seconds_count{model="acme/tiny"} 1.0' in text
    assert 'atelier_loads_total{outcome="ready"} 1.0' in text
    assert 'atelier_instances{state="ready"} 1.0' in text
    assert "atelier_registry_connected 1.0" in text
    assert "atelier_requests_active 0.0" in text


async def test_a_gateway_without_a_registry_is_alive_but_not_ready(registry: FakeRegistry) -> None:
    await registry.go_away()
    gateway = Gateway(Config(registry_address=registry.target))
    await gateway.start()
    try:
        async with client_of(gateway) as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
            refused = await http.post("/v1/chat/completions", json=CHAT)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            await registry.start()
            await until(lambda: gateway.watcher.connected)
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    finally:
        await gateway.close()


async def test_a_request_is_one_log_line_without_its_content(gateway: RunningGateway) -> None:
    with structlog.testing.capture_logs() as lines:
        async with gateway.client() as http:
            await http.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers={"x-request-id": "r1"})
            await http.post("/v1/chat/completions", json={**CHAT, "model": "secret-name"})
    answered, refused = [line for line in lines if line["event"] == "request"]
    assert answered.pop("seconds") >= 0
    assert answered == {
        "event": "request",
        "log_level": "info",
        "id": "r1",
        "route": "POST /v1/chat/completions",
        "status": 200,
        "model": KEY,
        "prompt_tokens": 3,
        "completion_tokens": 3,
    }
    assert (refused["status"], refused["error"]) == (404, "model_not_found")
    assert "one" not in str(lines)
    assert "secret-name" not in str(lines)


async def test_half_open_connections_block_no_requests_and_are_closed(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 2.0)
    half_open = [await gateway.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: ") for _ in range(200)]
    async with gateway.client() as http:
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    async with asyncio.timeout(PATIENCE):
        assert [await reader.read() for reader, _ in half_open] == [b""] * 200
    for _, writer in half_open:
        writer.close()


@pytest.mark.parametrize("before", [b"", b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_slowly_sent_headers_do_not_keep_a_connection_open(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.2)
    reader, writer = await gateway.raw(before)
    if before:
        await reader.readuntil(b"}}")
    writer.write(b"GET /")
    with contextlib.closing(writer):
        async with asyncio.timeout(PATIENCE):
            while not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(0.02)


async def test_an_answer_may_take_longer_than_the_header_timeout(
    gateway: RunningGateway, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.05)
    registry.script = {"hold": True}
    await registry.start_instance()
    reader, writer = await gateway.raw(post_bytes("/v1/chat/completions", CHAT, Connection="close"))
    await until(lambda: gateway.gateway.admission.active == 1)
    writer.write(b"\r\n")  # as old clients do after a body
    await asyncio.sleep(0.2)
    registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
    assert b"one two three" in await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()


async def test_a_missing_body_times_out(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.dialects.body.BODY_SECONDS", 0.1)
    whole = post_bytes("/v1/chat/completions", CHAT)
    reply = await reply_to(gateway, whole[:-1])
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_too_slow"' in reply


async def test_a_large_body_is_parsed_without_blocking_streams(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noting(body: bytes, kind: Any) -> Any:
        threads.append(threading.current_thread())
        return parse(body, kind)

    monkeypatch.setattr("gateway.dialects.body.parse", noting)
    async with gateway.client() as http:
        for size in (1, 2**20):
            assert (await http.post("/v1/chat/completions", json={**CHAT, "user": "x" * size})).status_code == 200
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_a_disconnect_in_the_middle_of_a_body_is_not_logged_as_an_error(gateway: RunningGateway) -> None:
    with structlog.testing.capture_logs() as lines:
        _, writer = await gateway.raw(post_bytes("/v1/chat/completions", CHAT)[:-1])
        writer.close()
        await until(lambda: lines)
    assert [(line["event"], line["status"]) for line in lines] == [("request", 499)]
