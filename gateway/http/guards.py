"""Checks that every request passes before its route. Pure ASGI: streams pass through unchanged."""

import contextlib
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.errors import AtelierError, Draining, Forbidden, PayloadTooLarge, Unauthenticated
from gateway.core.admission import Admission
from gateway.http.error_responses import error_response

HEALTH = frozenset({"/healthz", "/readyz"})
GREETING = "/lmstudio-greeting"  # LM Studio's SDK requests it, without a key, to recognise such a server
KEY_SHOWN = "atelier.key_shown"
GUARDED = frozenset({"http", "websocket"})  # what a client can open
LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


async def refuse(error: AtelierError, scope: Scope, receive: Receive, send: Send) -> None:
    scope["atelier.account"].error = error.code
    await error_response(error, scope)(scope, receive, send)


def header_values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


class HostGuard:
    """Rejects hosts that are not this server's: against DNS rebinding.

    A hostile web page can make its own name resolve to this machine, but the browser then sends that
    name as Host. Numeric addresses are safe, and so is a missing Host: browsers always send one.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self.app = app
        self._names = frozenset(name.lower().rstrip(".") for name in names) | LOOPBACK_NAMES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in GUARDED and not all(map(self._is_ours, header_values(scope, b"host"))):
            await refuse(Forbidden(), scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = host_name(host)
        return not host or "*" in self._names or name in self._names or _is_address(name)


def host_name(host: str) -> str:
    """The name or number in a Host header, without port, brackets, case and trailing dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class OriginGuard:
    """Rejects web pages other than our own and the allowed origins': against cross-site request forgery.

    Without CORS a foreign page cannot read a reply, but browsers send its POST of plain text without a
    preflight, and that would load a model. Programs send no Origin. Inside of CORS, which answers preflights.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self.app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in GUARDED and scope["path"] not in HEALTH and not self._passes(scope):
            message = "Web pages of this origin may not call this server; ATELIER_CORS lists the origins that may."
            await refuse(Forbidden(message), scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        origins = header_values(scope, b"origin")
        return not origins or "*" in self._allowed or self._allowed.union(own_origins(scope)).issuperset(origins)


def own_origins(scope: Scope) -> set[str]:
    """What pages from this server send as Origin: the Host, over http or behind a proxy's https."""
    hosts = [host.lower() for host in header_values(scope, b"host") if host]
    plain = {f"http://{host.removesuffix(':80')}" for host in hosts}
    return plain | {f"https://{host.removesuffix(':443')}" for host in hosts}


class DrainGuard:
    """Once the server drains, rejects everything except health checks and metrics."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admission.draining and scope["type"] in GUARDED and scope["path"] not in {*HEALTH, "/metrics"}:
            await refuse(Draining(), scope, receive, send)
            return
        await self.app(scope, receive, send)


class ServerKey:
    """The key that the server requires, as digests to compare with."""

    def __init__(self, key: str) -> None:
        forms = key_forms(key.strip())  # a key from a file ends with a newline, which a header cannot contain
        self.owner = owner_name(key.strip())
        self._digests = [hashlib.sha256(form).digest() for form in forms]

    def is_among(self, given: Iterable[bytes]) -> bool:
        # Digests have one length, so that the comparison's time reveals nothing about the key's length.
        digests = [hashlib.sha256(key).digest() for key in given]
        return any(hmac.compare_digest(key, ours) for key in digests for ours in self._digests)


class KeyGuard:
    """Requires the server's key, as `Authorization: Bearer` or `x-api-key`, except for health and the greeting.

    A WebSocket of LM Studio's SDK without a key in its headers is admitted: that protocol sends the key in
    its first frame, and the socket checks it there, unless `KEY_SHOWN` is true in its scope.
    """

    def __init__(self, app: ASGIApp, key: str, asked_within: Iterable[str] = ()) -> None:
        """`asked_within`: paths of WebSockets that check the key themselves."""
        self.app = app
        self._key = ServerKey(key)
        self._asked_within = frozenset(asked_within)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in GUARDED and scope["path"] not in {*HEALTH, GREETING} and not self._passes(scope):
            await refuse(Unauthenticated(), scope, receive, send)
            return
        scope["atelier.owner"] = self._key.owner
        await self.app(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        given = given_keys(scope)
        if scope["type"] == "websocket" and scope["path"] in self._asked_within and not given:
            return True
        shown = self._key.is_among(given)
        scope[KEY_SHOWN] = shown
        return shown


def owner_name(key: str) -> str:
    """The owner of what is stored for clients with this key. It reveals nothing about the key."""
    return hashlib.sha256(b"owner:" + key.encode("utf-8", "surrogateescape")).hexdigest()


def given_keys(scope: Scope) -> list[bytes]:
    headers = [(name, value.strip()) for name, value in scope["headers"]]
    schemes = (value.partition(b" ") for name, value in headers if name == b"authorization")
    bearers = [key.strip() for scheme, _, key in schemes if scheme.lower() == b"bearer"]
    return bearers + [value for name, value in headers if name == b"x-api-key"]


def key_forms(key: str) -> set[bytes]:
    """The key as clients may send it: most in UTF-8, browsers and Python's http.client in Latin-1. Empty for no key."""
    forms = {key.encode("utf-8", "surrogateescape")}
    with contextlib.suppress(UnicodeEncodeError):
        forms.add(key.encode("latin-1"))
    return forms - {b""}


class BodyLimit:
    """Rejects a body above the limit: at once if Content-Length says so, otherwise when the limit is reached."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif any(_length(value) > self._limit for value in header_values(scope, b"content-length")):
            await refuse(self._error(), scope, receive, send)
        else:
            await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._limit:
                    raise self._error()
            return message

        return counted

    def _error(self) -> PayloadTooLarge:
        limit = self._limit / 2**20
        return PayloadTooLarge(f"The request's body is larger than the {limit:g} MiB that this server accepts.")


def _length(value: str) -> int:
    return int(value) if value.isascii() and value.isdecimal() else 0
