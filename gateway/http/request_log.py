"""The outermost middleware: gives every request an id and an account, and records its log line and metrics."""

import re
import uuid

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.errors import AtelierError
from atelier.metrics import GatewayMetrics
from gateway.core.call import Account
from gateway.http.error_responses import FORM_OF, FormOf, error_response
from gateway.http.guards import GUARDED
from gateway.http.streaming import CLIENT_CLOSED_REQUEST

GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
ID_HEADERS = (b"x-request-id", b"request-id")  # the latter for Anthropic's clients
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # requested every few seconds
RESPONSE_STARTS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
SWITCHING_PROTOCOLS = 101

_log = structlog.get_logger(__name__)


class RequestLog:
    """Logs nothing of prompts or completions. An unexpected exception becomes a 500 here."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, form_of: FormOf) -> None:
        """`form_of`: in which form the request's errors are written, by this and every inner layer."""
        self.app = app
        self._form_of = form_of
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in GUARDED:
            await self.app(scope, receive, send)
            return
        scope[FORM_OF] = self._form_of
        account = scope["atelier.account"] = Account(request_id(scope))
        id_headers = [(name, account.request_id.encode()) for name in ID_HEADERS]
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in RESPONSE_STARTS:
                status = int(message.get("status", SWITCHING_PROTOCOLS))
                message["headers"] = [*message.get("headers", []), *id_headers]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            _log.exception("request_failed", id=account.request_id)
            account.error = AtelierError.code
            if status:
                raise  # uvicorn closes the connection: the response cannot be completed
            await error_response(AtelierError(), scope)(scope, receive, send_with_id)
        finally:
            self._record(scope, account, status or CLIENT_CLOSED_REQUEST)

    def _record(self, scope: Scope, account: Account, status: int) -> None:
        route = route_template(scope)
        if scope["type"] == "http":
            record(self._metrics, account, f"{scope['method']} {route}", route, status)
        else:  # the calls on a socket are recorded one by one; how long it was open is no measure
            _log.info("socket_closed", id=account.request_id, route=route, status=status, error=account.error)


def record(metrics: GatewayMetrics, account: Account, logged_route: str, route: str, status: int) -> None:
    """Write one request's log line and count it in the metrics. `route`: the metrics' label."""
    seconds = account.seconds()
    metrics.count_request(route, status, seconds)
    level = _log.debug if route in QUIET else _log.info
    facts: dict[str, str | int] = {"model": account.model, "error": account.error}
    if account.prompt_tokens:
        facts |= {"prompt_tokens": account.prompt_tokens, "completion_tokens": account.completion_tokens}
    level(
        "request",
        id=account.request_id,
        route=logged_route,
        status=status,
        seconds=round(seconds, 4),
        **{name: value for name, value in facts.items() if value},
    )


def request_id(scope: Scope) -> str:
    """The client's own id for the request, if it is safe to log, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and GIVEN_ID.fullmatch(value):
            return str(value.decode())
    return new_id()


def new_id() -> str:
    return f"req_{uuid.uuid4().hex}"


def route_template(scope: Scope) -> str:
    """The route as declared, so that the metrics have a bounded number of labels."""
    return getattr(scope.get("route"), "path", "unmatched")
