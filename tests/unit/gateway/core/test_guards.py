"""The checks that a request must pass, without a server."""

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from atelier.errors import AtelierError
from gateway.core.admission import Admission
from gateway.core.call import Account
from gateway.http.error_responses import error_response
from gateway.http.guards import BodyLimit, DrainGuard, HostGuard, KeyGuard, OriginGuard, host_name


async def echo_length(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = await Request(scope, receive).body()
    except AtelierError as error:
        await error_response(error, scope)(scope, receive, send)
    else:
        await PlainTextResponse(str(len(body)))(scope, receive, send)


async def ask(guard: ASGIApp, path: str = "/v1/models", **options: Any) -> httpx.Response:
    async def with_account(scope: Scope, receive: Receive, send: Send) -> None:
        scope["atelier.account"] = Account("r")
        await guard(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_account), base_url="http://localhost") as client:
        return await client.post(path, **options)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "LOCALHOST.", "127.0.0.1:1234", "[::1]:1234", "10.1.2.3", "lab1", "lab1:80"]
)
async def test_local_names_and_ip_addresses_are_accepted_as_hosts(host: str) -> None:
    assert (await ask(HostGuard(echo_length, ["lab1"]), headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "lab10", "[evil]", "@"])
async def test_other_hosts_are_forbidden(host: str) -> None:
    reply = await ask(HostGuard(echo_length, ["lab1"]), headers={"host": host})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")


async def test_a_star_accepts_every_host() -> None:
    assert (await ask(HostGuard(echo_length, ["*"]), headers={"host": "any.example"})).status_code == 200


def test_a_host_is_compared_without_port_brackets_and_case() -> None:
    hosts = ["Lab1:80", "[::1]:80", "[::1]", "a.b.", ""]
    assert [host_name(host) for host in hosts] == ["lab1", "::1", "::1", "a.b", ""]


OUR_PAGES = [
    ("localhost:1234", "http://localhost:1234"),
    ("LocalHost:1234", "http://localhost:1234"),
    ("chat.example", "https://chat.example"),
    ("chat.example:443", "https://chat.example"),
    ("[::1]:80", "http://[::1]"),
]
OTHERS_PAGES = [
    ("localhost:1234", "https://evil.example"),
    ("localhost:1234", "http://localhost:3000"),
    ("localhost:1234", "http://localhost"),
    ("localhost:1234", "http://localhost:1234.evil.example"),
    ("localhost:1234", "null"),
    ("localhost:1234", ""),
    ("", "http://"),
]


@pytest.mark.parametrize(("host", "origin"), OUR_PAGES)
async def test_pages_of_this_origin_are_accepted(host: str, origin: str) -> None:
    assert (await ask(OriginGuard(echo_length, []), headers={"host": host, "origin": origin})).status_code == 200


@pytest.mark.parametrize(("host", "origin"), OTHERS_PAGES)
async def test_pages_of_other_origins_are_forbidden(host: str, origin: str) -> None:
    headers = {"host": host, "origin": origin, "content-type": "text/plain"}
    reply = await ask(OriginGuard(echo_length, ["https://chat.example"]), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")
    assert "ATELIER_CORS" in reply.json()["error"]["message"]


async def test_every_origin_header_must_be_allowed() -> None:
    two = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "https://evil.example")]
    assert (await ask(OriginGuard(echo_length, []), headers=two)).status_code == 403


async def test_allowed_origins_pass_and_a_star_allows_every_origin() -> None:
    page = {"origin": "https://chat.example"}
    assert (await ask(OriginGuard(echo_length, ["https://chat.example"]), headers=page)).status_code == 200
    assert (await ask(OriginGuard(echo_length, ["*"]), headers={"origin": "null"})).status_code == 200


async def test_requests_without_an_origin_are_accepted_and_health_ignores_it() -> None:
    guard = OriginGuard(echo_length, [])
    assert (await ask(guard)).status_code == 200
    page = {"origin": "https://evil.example"}
    assert [(await ask(guard, path, headers=page)).status_code for path in ("/healthz", "/metrics")] == [200, 403]


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer secret"}, {"authorization": "bearer  secret "}, {"x-api-key": "secret"}]
)
async def test_the_key_is_accepted_in_each_of_its_forms(headers: dict[str, str]) -> None:
    assert (await ask(KeyGuard(echo_length, "secret"), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "secret"}, {"authorization": "Basic secret"}, {"x-api-key": ""}, {"x-api-key": "secret2"}],
)
async def test_a_missing_or_wrong_key_is_rejected(headers: dict[str, str]) -> None:
    reply = await ask(KeyGuard(echo_length, "secret"), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("header", [(b"authorization", b"Bearer "), (b"x-api-key", b"")])
async def test_a_non_ascii_key_is_accepted_in_either_encoding(encoding: str, header: tuple[bytes, bytes]) -> None:
    name, scheme = header
    headers = [(name, scheme + "schlüssel-à".encode(encoding))]
    assert (await ask(KeyGuard(echo_length, "schlüssel-à"), headers=headers)).status_code == 200


async def test_the_newline_of_a_key_file_is_stripped() -> None:
    assert (await ask(KeyGuard(echo_length, " secret\n"), headers={"x-api-key": "secret"})).status_code == 200


async def test_a_blank_configured_key_is_rejected() -> None:
    for headers in ({"x-api-key": ""}, {"authorization": "Bearer "}, {"x-api-key": " "}):
        assert (await ask(KeyGuard(echo_length, " \n"), headers=headers)).status_code == 401


async def test_health_needs_no_key_and_metrics_do() -> None:
    guard = KeyGuard(echo_length, "secret")
    assert [(await ask(guard, path)).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 401]


async def test_a_body_at_the_limit_is_accepted_and_one_more_byte_is_not() -> None:
    guard = BodyLimit(echo_length, 10)
    assert (await ask(guard, content=b"x" * 10)).text == "10"
    reply = await ask(guard, content=b"x" * 11)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "payload_too_large")
    assert reply.headers["connection"] == "close"


async def test_a_body_without_content_length_is_cut_off_at_the_limit() -> None:
    pieces = 0

    async def endless() -> Any:
        nonlocal pieces
        while True:
            pieces += 1
            yield b"x" * 4

    assert (await ask(BodyLimit(echo_length, 10), content=endless())).status_code == 413
    assert pieces <= 4


async def test_only_health_and_metrics_answer_while_draining() -> None:
    admission = Admission(1)
    guard = DrainGuard(echo_length, admission)
    assert (await ask(guard)).status_code == 200
    admission.close()
    reply = await ask(guard)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "draining")
    assert int(reply.headers["retry-after"]) > 0
    assert (await ask(guard, "/metrics")).status_code == 200
