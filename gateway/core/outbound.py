"""Requests to addresses that clients name: only public ones, and those that the operator allows.

Otherwise clients could reach, through this server, what only this machine can reach (server-side request forgery).
Each name is resolved once, all its addresses are checked, and the connection goes to a checked address: a name that
resolves differently a moment later gains nothing. Redirects are checked in the same way.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from atelier import __version__
from atelier.hosts import split_host

MOST_REDIRECTS = 3
MOST_ADDRESSES = 4  # of one name, tried in turn
STEP_SECONDS = 10.0  # to connect, and between two pieces of a reply
PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""A host and a port to numeric addresses. Raises OSError."""

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
EMBEDDING = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64: the last four bytes are an IPv4 address (RFC 6052)
# Networks that `ipaddress` calls global, or did in some release, although they are special.
SPECIAL_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"),
            "168.63.129.16/32",  # a virtual machine's host, on Azure
        ),
    )
)
SPECIAL_IPV6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


class ForbiddenAddress(Exception):
    """The message says what is wrong with the URL, and reveals nothing about where a name resolves to."""


async def resolve_name(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether a numeric address is on the public internet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return _is_public_ipv4(parsed)
    if parsed.ipv4_mapped is not None:
        return _is_public_ipv4(parsed.ipv4_mapped)
    if parsed.scope_id is not None:
        return False
    if parsed in EMBEDDING:
        return _is_public_ipv4(ipaddress.IPv4Address(parsed.packed[-4:]))
    return parsed in GLOBAL_UNICAST and parsed.is_global and not any(parsed in network for network in SPECIAL_IPV6)


def _is_public_ipv4(address: ipaddress.IPv4Address) -> bool:
    special = address.is_multicast or address.is_reserved or any(address in network for network in SPECIAL_IPV4)
    return address.is_global and not special


class AddressGuard:
    """Decides which addresses a request to a URL may connect to."""

    def __init__(self, allowed: Iterable[str] = (), resolve: Resolve = resolve_name) -> None:
        """`allowed`: hosts, with or without a port, that may be reached at any address."""
        self._allowed = frozenset(split_host(entry) for entry in allowed)
        self._resolve = resolve

    async def addresses(self, url: httpx2.URL) -> list[str]:
        """The addresses of the URL's host, all of which may be reached. Raises ForbiddenAddress."""
        if url.scheme not in PORTS:
            raise ForbiddenAddress("must be an http or https URL")
        if url.userinfo:
            raise ForbiddenAddress("must not hold a user or a password")
        host, port = host_of(url), url.port or PORTS[url.scheme]
        if not host:
            raise ForbiddenAddress("names no host")
        allowed = self._allows(host, port)
        if port != PORTS[url.scheme] and not allowed:
            raise ForbiddenAddress(
                f"must not name a port other than {PORTS[url.scheme]}, unless the operator allows it "
                "(ATELIER_OUTBOUND_HOSTS)"
            )
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            found = []
        # One message for both: two would reveal which names exist in the server's own network.
        if not found or not (allowed or all(map(is_public, found))):
            raise ForbiddenAddress(
                f'the host "{host[:200]}" is unknown, or not public and not among those that the operator allows '
                "(ATELIER_OUTBOUND_HOSTS)"
            )
        return found

    def _allows(self, host: str, port: int) -> bool:
        return not self._allowed.isdisjoint({(host, None), (host, port)})


def host_of(url: httpx2.URL) -> str:
    """In ASCII and lower case, and as in a certificate: without the root's dot."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends a request to an address that the guard allows, with the name of its host in Host and in TLS."""

    def __init__(self, guard: AddressGuard, transport: httpx2.AsyncBaseTransport) -> None:
        self._guard = guard
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await _bare_redirect(await self._reach(request))

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _reach(self, request: httpx2.Request) -> httpx2.Response:
        addresses = (await self._guard.addresses(request.url))[:MOST_ADDRESSES]
        for address in addresses[:-1]:
            try:
                return await self._send(request, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # a machine without IPv6 may still resolve IPv6 addresses
        return await self._send(request, addresses[-1])

    async def _send(self, request: httpx2.Request, address: str) -> httpx2.Response:
        pinned = httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host_of(request.url)},
        )
        return await self._transport.handle_async_request(pinned)


async def _bare_redirect(reply: httpx2.Response) -> httpx2.Response:
    """A redirect without its body, which the HTTP client would read and decompress whole, whatever its size."""
    if not reply.has_redirect_location:
        return reply
    await reply.aclose()
    return httpx2.Response(reply.status_code, headers={"location": reply.headers["location"]})


def direct_transport(verify: ssl.SSLContext | bool = True) -> httpx2.AsyncHTTPTransport:
    """Connections are not kept: the pool knows them by address, and would reuse one for another name, unverified.

    `verify`: certificates loaded already, since loading them takes longer than connecting.
    """
    return httpx2.AsyncHTTPTransport(verify=verify, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))


def outbound_client(guard: AddressGuard, transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """Without the environment's proxies and certificates, and without cookies. The caller limits bytes and time."""
    return httpx2.AsyncClient(
        transport=GuardedTransport(guard, transport or direct_transport()),
        trust_env=False,
        follow_redirects=True,
        max_redirects=MOST_REDIRECTS,
        timeout=STEP_SECONDS,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"user-agent": f"lm-atelier/{__version__}", "accept-encoding": "identity"},
    )
