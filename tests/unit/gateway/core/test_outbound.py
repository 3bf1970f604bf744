"""Where requests to URLs that clients name may connect to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence

import httpx2
import pytest

from atelier.hosts import split_host
from gateway.core.outbound import (
    MOST_REDIRECTS,
    AddressGuard,
    ForbiddenAddress,
    is_public,
    outbound_client,
    resolve_name,
)

PUBLIC, OTHER = "93.184.215.14", "2606:2800:21f:cb07::1"


class Names:
    """A resolver that may return other addresses for a name at each call."""

    def __init__(self, names: Mapping[str, Sequence[list[str]]]) -> None:
        self._answers = {name: list(answers) for name, answers in names.items()}
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if not self._answers.get(host):
            raise OSError("no such name")
        answers = self._answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Web(httpx2.AsyncBaseTransport):
    """A transport that records its requests and answers by path, without connecting."""

    def __init__(self, replies: Mapping[str, httpx2.Response] | None = None, dead: Sequence[str] = ()) -> None:
        self._replies = replies or {}
        self._dead = dead
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host in self._dead:
            raise httpx2.ConnectError("unreachable")
        return self._replies.get(request.url.path) or httpx2.Response(200, content=b"here")


class Endless(httpx2.AsyncByteStream):
    """An endless body that counts the pieces read from it."""

    def __init__(self) -> None:
        self.pieces = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.pieces += 1
            yield b"\0"

    async def aclose(self) -> None:
        self.closed = True


def moved(location: str) -> httpx2.Response:
    return httpx2.Response(302, headers={"location": location, "set-cookie": "a=b"})


def client_of(names: Names, web: Web) -> httpx2.AsyncClient:
    return outbound_client(AddressGuard((), names), web)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
        *("169.254.169.254", "100.64.0.1", "100.127.255.255", "100.100.100.200", "192.0.0.1", "192.0.0.192"),
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1", "224.0.0.1", "239.255.255.250"),
        *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "2606:4700::1%lo", "fc00::1", "fd00::1", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0.0.0.0", "::ffff:169.254.169.254", "::ffff:7f00:1"),
        *("::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1"),
        *("2001::1", "2001:db8::1", "3fff::1", "100::1", "4000::1", "nonsense", ""),
    ],
)
def test_addresses_of_this_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, OTHER, "8.8.8.8", "1.1.1.1", "172.32.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2001:4860::1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://0x7f000001/", "http://017700000001/"),
        *("http://127.1/", "http://0/", "http://0.0.0.0/", "http://[::]/", "http://[::1]/", "http://[::ffff:7f00:1]/"),
        *("http://[::ffff:127.0.0.1]/", "http://[fe80::1]/", "http://127.0.0.1./", "https://127.0.0.1:8443/x"),
        *("http://user@127.0.0.1/", "http://user:pass@127.0.0.1/", "http://127.0.0.1:99@127.0.0.2/"),
        *("http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/", "http://255.255.255.255/"),
        *("ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "//127.0.0.1/", "http:///x", "unix:///x"),
        "http://\u2460\u2461\u2466.0.0.1/",
    ],
)
async def test_no_spelling_of_a_url_reaches_this_machine(url: str) -> None:
    """Uses the server's own resolver: none of these names causes a DNS query."""
    web = Web()
    async with outbound_client(AddressGuard(), web) as client:
        with pytest.raises((ForbiddenAddress, httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
            await client.get(url)
    assert web.requests == []


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    guard = AddressGuard((), Names({"mixed": [[PUBLIC, "10.0.0.1"]]}))
    with pytest.raises(ForbiddenAddress, match="ATELIER_OUTBOUND_HOSTS"):
        await guard.addresses(httpx2.URL("http://mixed/"))


async def test_an_unknown_and_a_private_name_are_rejected_with_the_same_message() -> None:
    guard = AddressGuard((), Names({"inner": [["10.0.0.1"]]}))
    messages = []
    for host in ("inner", "nobody"):
        with pytest.raises(ForbiddenAddress) as caught:
            await guard.addresses(httpx2.URL(f"http://{host}/"))
        messages.append(str(caught.value).replace(host, ""))
    assert messages[0] == messages[1]


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    names = Names({"example.org": [[PUBLIC], ["127.0.0.1"]]})
    web = Web()
    async with client_of(names, web) as client:
        assert (await client.get("https://Example.org/a?b=c")).content == b"here"
        with pytest.raises(ForbiddenAddress):  # the name resolves to another address now
            await client.get("https://example.org/")
    [request] = web.requests
    assert str(request.url) == f"https://{PUBLIC}/a?b=c"
    assert request.headers["host"] == "example.org"
    assert request.extensions["sni_hostname"] == "example.org"
    assert names.asked == [("example.org", 443), ("example.org", 443)]


@pytest.mark.parametrize("url", ["https://example.org:80/", "http://example.org:25/", "http://example.org:443/"])
async def test_a_public_host_is_reached_at_the_default_port_only(url: str) -> None:
    names = Names({"example.org": [[PUBLIC]]})
    with pytest.raises(ForbiddenAddress, match=r"a port other than (80|443)"):
        await AddressGuard((), names).addresses(httpx2.URL(url))
    assert names.asked == []
    port = httpx2.URL(url).port
    assert await AddressGuard([f"example.org:{port}"], names).addresses(httpx2.URL(url)) == [PUBLIC]


async def test_an_ipv6_address_is_put_in_brackets() -> None:
    web = Web()
    async with client_of(Names({"example.org.": [[OTHER]], "example.org": [[OTHER]]}), web) as client:
        await client.get("http://example.org./")
    assert str(web.requests[0].url) == f"http://[{OTHER}]/"
    assert web.requests[0].extensions["sni_hostname"] == "example.org"


async def test_the_next_address_is_tried_when_one_is_unreachable() -> None:
    web = Web(dead=[OTHER])
    async with client_of(Names({"example.org": [[OTHER, PUBLIC]]}), web) as client:
        await client.get("http://example.org/")
    assert [request.url.host for request in web.requests] == [OTHER, PUBLIC]


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "http://2130706433/", "http://inner/", "//inner/x", "http://[::1]:80/"),
        *("ftp://example.org/", "file:///etc/passwd", "http://user:pass@example.org/"),
    ],
)
async def test_a_redirect_is_checked_like_a_request(location: str) -> None:
    web = Web({"/a": moved(location)})
    names = Names({"example.org": [[PUBLIC]], "inner": [["10.0.0.1"]], "127.0.0.1": [["127.0.0.1"]]})
    async with client_of(names, web) as client:
        with pytest.raises((ForbiddenAddress, httpx2.UnsupportedProtocol)):
            await client.get("http://example.org/a")
    assert [request.url.path for request in web.requests] == ["/a"]


async def test_redirects_are_followed_without_cookies_up_to_a_limit() -> None:
    web = Web({"/a": moved("/b"), "/loop": moved("/loop")})
    async with client_of(Names({"example.org": [[PUBLIC]]}), web) as client:
        assert (await client.get("http://example.org/a")).content == b"here"
        assert [request.url.path for request in web.requests] == ["/a", "/b"]
        assert all("cookie" not in request.headers for request in web.requests)
        with pytest.raises(httpx2.TooManyRedirects):
            await client.get("http://example.org/loop")
    assert len(web.requests) == 2 + 1 + MOST_REDIRECTS


async def test_the_body_of_a_redirect_is_not_read() -> None:
    """httpx2 would read it to its end and decompress it, however large it is."""
    body = Endless()
    web = Web({"/a": httpx2.Response(302, headers={"location": "/b", "content-encoding": "gzip"}, stream=body)})
    async with client_of(Names({"example.org": [[PUBLIC]]}), web) as client:
        assert (await client.get("http://example.org/a")).content == b"here"
    assert (body.pieces, body.closed) == (0, True)


@pytest.mark.parametrize(
    ("allowed", "url", "reached"),
    [
        (["nas"], "http://nas/a", True),
        (["nas"], "https://NAS./a", True),
        (["nas:8080"], "http://nas:8080/a", True),
        (["nas:8080"], "http://nas/a", False),
        (["nas:80"], "http://nas/a", True),
        (["nas:443"], "https://nas/a", True),
        (["nas"], "http://nas.evil/a", False),
        (["10.0.0.1"], "http://nas/a", False),
        (["10.0.0.1"], "http://10.0.0.1:81/a", True),
        (["[fd00::1]:80"], "http://[fd00::1]/a", True),
        (["[fd00::1]:80"], "http://[fd00::1]:81/a", False),
    ],
)
async def test_an_operator_may_allow_hosts(allowed: list[str], url: str, reached: bool) -> None:
    private = {name: [["10.0.0.1"]] for name in ("nas", "nas.evil", "10.0.0.1")}
    guard = AddressGuard(allowed, Names({**private, "fd00::1": [["fd00::1"]]}))
    try:
        assert bool(await guard.addresses(httpx2.URL(url))) == reached
    except ForbiddenAddress:
        assert not reached


async def test_an_invalid_host_name_is_rejected() -> None:
    with pytest.raises(ForbiddenAddress):
        await AddressGuard().addresses(httpx2.URL("http://" + "a" * 70 + ".example/"))


async def test_proxies_and_certificates_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with outbound_client(AddressGuard(), Web()) as client:
        assert client._mounts == {}
        assert not client.trust_env


async def test_tls_uses_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real connection: the client connects to an address, and SNI carries the host's name."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read_client_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(read_client_hello, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        outbound_client(AddressGuard(["nas.example"], Names({"nas.example": [["127.0.0.1"]]}))) as client,
    ):
        with pytest.raises((httpx2.TransportError, ssl.SSLError)):
            await client.get(f"https://nas.example:{port}/")
        assert b"nas.example" in await asyncio.wait_for(received, 5)


async def test_ip_addresses_resolve_to_themselves() -> None:
    assert await resolve_name("127.0.0.1", 80) == ["127.0.0.1"]
    assert await resolve_name("::1", 80) == ["::1"]


@pytest.mark.parametrize("entry", ["", ":80", "http://nas", "nas/x", "a@nas", "nas:port", "nas:99999", "[::1", "::1"])
def test_an_invalid_host_cannot_be_allowed(entry: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each part of the parser says it in its own words
        split_host(entry)
