"""gRPC as this project uses it: channels, servers, tokens, and errors that cross the wire whole."""

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
MAX_MESSAGE_BYTES = 128 * 2**20  # a request's body of the usual limit, and its images beside it
KEEPALIVE_MS = 10_000

CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # patience with one attempt: a busy machine answers late
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # a restarted server is not held to its predecessor's back-off
    ("grpc.enable_http_proxy", 0),
    # No more than 64 KiB on the way: behind a gateway that has too much to do, a worker is to join its steps'
    # events into one message, which costs less, rather than have thousands of old messages queue up.
    ("grpc.http2.bdp_probe", 0),
)
SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *CHANNEL_OPTIONS[:5],
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # two servers must not share a port by accident
)

_log = structlog.get_logger(__name__)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `unix:/path` or `host:port`. It connects lazily and reconnects by itself."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


def token_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Call metadata that proves the caller was told this launch's token."""
    return ((TOKEN_KEY, token),)


def create_server(token: str | None) -> grpc.aio.Server:
    """A server that refuses calls without the token (health excepted); None: its socket is private."""
    interceptors = [TokenCheck(token)] if token else []
    return grpc.aio.server(options=SERVER_OPTIONS, interceptors=interceptors)


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses every call whose metadata lacks the launch's token. Health checks carry none."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        if handler_call_details.method.startswith("/grpc.health.v1.") or self._proves(handler_call_details):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)

    def _proves(self, details: grpc.HandlerCallDetails) -> bool:
        given = dict(details.invocation_metadata or ()).get(TOKEN_KEY, "")
        return hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._token)


async def _refuse(request: Any, context: Context) -> None:
    await abort(context, Unauthenticated("The call does not carry this launch's token."))


async def abort(context: Context, error: AtelierError) -> None:
    """End the call with the error's gRPC code, and the error itself in the trailing metadata."""
    trailer = ((ERROR_KEY, to_message(error).SerializeToString()),)
    await context.abort(grpc.StatusCode[error.grpc_code], error.message, trailer)


@asynccontextmanager
async def reported_errors(context: Context) -> AsyncIterator[None]:
    """Inside, an exception ends the call as the caller should see it; unexpected ones are logged."""
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
    """What the other side raised, or what it means that the call failed."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return from_message(Error.FromString(value))
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"No answer from the other process: {error.details()}")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded()
    return AtelierError(f"{error.code().name}: {error.details()}")
