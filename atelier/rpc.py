"""gRPC: channels, servers, tokens, and errors with all their fields."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog

from atelier.errors import (
    AtelierError,
    DeadlineExceeded,
    Unauthenticated,
    Unavailable,
    from_message,
    to_message,
)
from protos.inference_pb2 import Error

if TYPE_CHECKING:  # generic in the stubs, not at run time
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler

ERROR_KEY = "atelier-error-bin"
TOKEN_KEY = "atelier-token"
MAX_MESSAGE_BYTES = 128 * 2**20  # a request body of the default limit, with its images
KEEPALIVE_MS = 10_000

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # timeout of a connection attempt: a busy machine answers late
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # a restarted server does not inherit the back-off
    ("grpc.enable_http_proxy", 0),
    # Keeps the flow-control window at 64 KiB: a worker that waits for a busy gateway then joins the events of several
    # steps into one message, which is cheaper, rather than queue thousands of messages.
    ("grpc.http2.bdp_probe", 0),
)
SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    *CHANNEL_OPTIONS[:5],
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # two servers must not share a port by accident
)

_log = structlog.get_logger(__name__)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `unix:/path` or `host:port`, which connects on first use and reconnects automatically."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def token_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Call metadata with this launch's token."""
    return ((TOKEN_KEY, token),)


def create_server(token: str | None) -> grpc.aio.Server:
    """A server that rejects calls without the token, except health checks. None: the socket is private."""
    interceptors = [TokenCheck(token)] if token else []
    return grpc.aio.server(options=SERVER_OPTIONS, interceptors=interceptors)


class TokenCheck(grpc.aio.ServerInterceptor):
    """Rejects calls whose metadata lacks the launch's token, except health checks, which carry none."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        if handler_call_details.method.startswith("/grpc.health.v1.") or self._has_token(handler_call_details):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_reject)

    def _has_token(self, details: grpc.HandlerCallDetails) -> bool:
        given = dict(details.invocation_metadata or ()).get(TOKEN_KEY, "")
        return hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._token)


async def _reject(request: object, context: Context) -> None:
    await abort(context, Unauthenticated("The call does not carry this launch's token."))


async def abort(context: Context, error: AtelierError) -> None:
    """End the call with the error's gRPC code; the trailing metadata carries the error itself."""
    trailer = ((ERROR_KEY, to_message(error).SerializeToString()),)
    await context.abort(grpc.StatusCode[error.grpc_code], error.message, trailer)


@asynccontextmanager
async def reported_errors(context: Context) -> AsyncIterator[None]:
    """An exception in the block ends the call with its error; unexpected exceptions are logged."""
    try:
        yield
    except AtelierError as error:
        await abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception:
        _log.exception("rpc_failed")
        await abort(context, AtelierError())


def from_rpc_error(error: grpc.aio.AioRpcError) -> AtelierError:
    """The error that the other process raised, or the one that matches the failure of the call."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return from_message(Error.FromString(value))
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"The other process does not answer: {error.details()}")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded()
    return AtelierError(f"{error.code().name}: {error.details()}")
