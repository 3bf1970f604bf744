"""What a request must pass before any route sees it. Pure ASGI: streams flow through untouched."""

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
GREETING = "/lmstudio-greeting"  # LM Studio's SDK asks for it, without a key, to see whether it is a server of the kind
KEY_SHOWN = "atelier.key_shown"
GUARDED = frozenset({"http", "websocket"})  # what a client can open
LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


async def refuse(error: AtelierError, scope: Scope, receive: Receive, send: Send) -> None:
    scope["atelier.account"].error = error.code
    await error_response(error, scope)(scope, receive, send)


def header_values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


class HostGuard:
    """Answers only for names that are ours: against DNS rebinding.

    A web page of a stranger's can make its own name point at this machine, but then the browser
    sends that name as Host. Numbers are safe, and so is no Host at all: browsers always send one.
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
    """Answers no web page but our own and those that may call from elsewhere: against forged requests.

    A stranger's page cannot read an answer without CORS, but a POST of plain text is sent unasked,
    and would load models all the same. Programs send no Origin. Inside of CORS, which answers preflights.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self.app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in GUARDED and scope["path"] not in HEALTH and not self._passes(scope):
            message = "Web pages of this origin may not call the server; ATELIER_CORS names those that may."
            await refuse(Forbidden(message), scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        origins = header_values(scope, b"origin")
        return not origins or "*" in self._allowed or self._allowed.union(own_origins(scope)).issuperset(origins)


def own_origins(scope: Scope) -> set[str]:
    """What pages that came from here send as Origin: the Host, over http or behind a proxy's https."""
    hosts = [host.lower() for host in header_values(scope, b"host") if host]
    plain = {f"http://{host.removesuffix(':80')}" for host in hosts}
    return plain | {f"https://{host.removesuffix(':443')}" for host in hosts}


class DrainGuard:
    """Once the server stops, refuses everything but questions about its health."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admission.draining and scope["type"] in GUARDED and scope["path"] not in {*HEALTH, "/metrics"}:
            await refuse(Draining(), scope, receive, send)
            return
        await self.app(scope, receive, send)


class ServerKey:
    """The key that the server asks for, as what it can be compared with."""

    def __init__(self, key: str) -> None:
        forms = key_forms(key.strip())  # a key from a file ends with a newline, which no header can hold
        self.owner = owner_name(key.strip())
        self._digests = [hashlib.sha256(form).digest() for form in forms]

    def is_among(self, given: Iterable[bytes]) -> bool:
        # Digests have one length, so that the comparison's time says nothing of the key's.
        digests = [hashlib.sha256(key).digest() for key in given]
        return any(hmac.compare_digest(key, ours) for key in digests for ours in self._digests)


class KeyGuard:
    """Asks for the server's key, as `Authorization: Bearer` or `x-api-key`. Only health and the greeting are open.

    A WebSocket of LM Studio's SDK that brings no key in its head is let in to bring it in its first
    frame, as that protocol has it: the socket asks for it there, unless `KEY_SHOWN` is in its scope.
    """

    def __init__(self, app: ASGIApp, key: str, asked_within: Iterable[str] = ()) -> None:
        """`asked_within`: paths of WebSockets that ask for the key themselves."""
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
    """What the server calls whoever has this key, where it keeps something for them: it tells nothing of the key."""
    return hashlib.sha256(b"owner:" + key.encode("utf-8", "surrogateescape")).hexdigest()


def given_keys(scope: Scope) -> list[bytes]:
    headers = [(name, value.strip()) for name, value in scope["headers"]]
    schemes = (value.partition(b" ") for name, value in headers if name == b"authorization")
    bearers = [key.strip() for scheme, _, key in schemes if scheme.lower() == b"bearer"]
    return bearers + [value for name, value in headers if name == b"x-api-key"]


def key_forms(key: str) -> set[bytes]:
    """The key as clients may send it: most in UTF-8, browsers and Python's own in Latin-1. None of no key."""
    forms = {key.encode("utf-8", "surrogateescape")}
    with contextlib.suppress(UnicodeEncodeError):
        forms.add(key.encode("latin-1"))
    return forms - {b""}


class BodyLimit:
    """Refuses a body larger than the limit: at once when its length is told, otherwise when it gets there."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif any(_length(told) > self._limit for told in header_values(scope, b"content-length")):
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


def _length(told: str) -> int:
    return int(told) if told.isascii() and told.isdecimal() else 0
