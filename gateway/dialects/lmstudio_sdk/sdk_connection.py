"""One client's WebSocket: frames in, the calls and channels that they open, frames out; and its authentication."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping
from typing import TypeVar

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from atelier.errors import AtelierError, Draining, InvalidRequest, Overloaded, Unauthenticated
from atelier.json_types import Json
from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.core.call import Account, Origin
from gateway.dialects.lmstudio_sdk.sdk_context import CallContext, Channel, Namespace
from gateway.dialects.lmstudio_sdk.sdk_errors import RequestedNames, parsed, serialized_error, unknown_endpoint
from gateway.dialects.lmstudio_sdk.sdk_frames import AuthFrame, ChannelCreate, ChannelSend, RpcCall
from gateway.dialects.reply import fairness_key
from gateway.fleet.watcher import Watcher
from gateway.http.guards import KEY_SHOWN, ServerKey
from gateway.http.request_log import new_id, record
from gateway.http.streaming import CLIENT_CLOSED_REQUEST

AUTH_SECONDS = 10.0  # for the first frame
GOODBYE_SECONDS = 1.0  # for the last ones, to a client that does not read
MOST_CALLS = 128  # open at a time on one socket
MOST_CHANNELS = 128
LARGE_CHARACTERS = 2**20  # a longer frame is parsed in a thread, so as not to delay the streams

# WebSocket close codes: RFC 6455, section 7.4.1, and IANA's WebSocket Close Code Number Registry.
UNSUPPORTED_DATA, POLICY_VIOLATION, SERVICE_RESTART = 1003, 1008, 1012

Opened = TypeVar("Opened", bound=CallContext)

_log = structlog.get_logger(__name__)


class Socket:
    """Owned by the connection's task, which reads; each open call and channel has its own task.

    connected --first frame--> authenticated --calls, channels--> closed by either side: all its tasks end

    Messages are written one at a time and wait while the client's socket is full. So a client that does not
    read costs at most one buffered message per call or channel, whose number is limited.
    """

    def __init__(
        self,
        websocket: WebSocket,
        namespace: Namespace,
        check_key: Callable[[WebSocket, Json], None],
        watcher: Watcher,
        admission: Admission,
        metrics: GatewayMetrics,
    ) -> None:
        """`check_key`: raises Unauthenticated if neither the handshake nor the first frame contains the key."""
        self._websocket = websocket
        self._namespace = namespace
        self._check_key = check_key
        self._watcher = watcher
        self._admission = admission
        self._metrics = metrics
        self._fairness_key = fairness_key(websocket)
        self._writing = asyncio.Lock()
        self._calls: dict[int, CallContext] = {}
        self._channels: dict[int, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns when either side has closed the socket."""
        try:
            await self._websocket.accept()
            if await self._authenticate():
                await self._read()
        except WebSocketDisconnect:
            pass
        finally:
            await self._end_work()

    async def drain(self) -> None:
        """Close, once the errors of failed calls and channels are sent."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE_SECONDS)
        await self._close(SERVICE_RESTART, "The server is stopping.")

    async def _authenticate(self) -> bool:
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                text = await self._receive()
        except TimeoutError:
            await self._close(POLICY_VIOLATION, "The first frame was not received in time.")
            return False
        if text is None:
            return False
        try:
            self._check_key(self._websocket, parse_json(text))
        except AtelierError as error:
            account: Account = self._websocket.scope["atelier.account"]
            account.error = error.code
            await self._send({"success": False, "error": self._serialized(error, RequestedNames())})
            await self._close(POLICY_VIOLATION, error.code)
            return False
        await self._send({"success": True})
        return True

    async def _read(self) -> None:
        while (text := await self._receive()) is not None:
            try:
                large = len(text) > LARGE_CHARACTERS
                await self._take(await asyncio.to_thread(parse_json, text) if large else parse_json(text))
            except InvalidRequest as error:
                await self._send({"type": "communicationWarning", "warning": error.message})

    async def _receive(self) -> str | None:
        """The next frame; None after the last."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        if (text := message.get("text")) is None:
            await self._close(UNSUPPORTED_DATA, "Only text frames are supported.")
            return None
        return str(text)

    async def _take(self, frame: Json) -> None:
        match frame.get("type"):
            case "rpcCall":
                await self._open_call(parsed(RpcCall, frame))
            case "channelCreate":
                await self._open_channel(parsed(ChannelCreate, frame))
            case "channelSend":
                self._cancel_channel(parsed(ChannelSend, frame))
            case "keepAlive":  # of LM Studio's client for JavaScript
                await self._send({"type": "keepAliveAck"})
            case other:
                raise InvalidRequest(f"type: unknown frame type {str(other)[:100]}", param="type")

    async def _open_call(self, frame: RpcCall) -> None:
        number, endpoint = frame.call_id, frame.endpoint
        ids = {"type": "rpcError", "callId": number}
        account = Account(new_id())
        context = CallContext(account=account, origin=self._origin(account), domain=self._namespace.domain)
        if not await self._may_open("call", endpoint, self._namespace.calls, self._calls, ids):
            return
        handler = self._namespace.calls[endpoint]

        async def answer() -> None:
            result = await handler(frame.parameter, context)
            fields = {} if result is None else {"result": result}
            await self._send({"type": "rpcResult", "callId": number, **fields})

        self._calls[number] = context
        await self._begin(self._run(context, endpoint, answer, ids), self._calls, number)
        if self._namespace.one_by_one and self._tasks:
            await asyncio.wait(self._tasks)

    async def _open_channel(self, frame: ChannelCreate) -> None:
        number, endpoint = frame.channel_id, frame.endpoint
        ids = {"type": "channelError", "channelId": number}

        async def send(message: object) -> None:
            await self._send({"type": "channelSend", "channelId": number, "message": message})

        account = Account(new_id())
        channel = Channel(account=account, origin=self._origin(account), domain=self._namespace.domain, send=send)
        if not await self._may_open("channel", endpoint, self._namespace.channels, self._channels, ids):
            return
        handler = self._namespace.channels[endpoint]

        async def answer() -> None:
            try:
                await handler(frame.creation_parameter, channel)
            except asyncio.CancelledError:
                if not channel.absorb_cancel():
                    raise
            await self._send({"type": "channelClose", "channelId": number})

        self._channels[number] = channel
        await self._begin(self._run(channel, endpoint, answer, ids), self._channels, number)

    def _cancel_channel(self, frame: ChannelSend) -> None:
        """Cancelling is the only message from clients. The channel may have just ended."""
        if frame.message.type != "cancel":
            raise InvalidRequest(f"message.type: must be cancel, not {frame.message.type[:100]}", param="message.type")
        if (channel := self._channels.get(frame.channel_id)) is not None:
            channel.cancel()

    async def _may_open(
        self, kind: str, endpoint: str, known: Collection[str], opened: MutableMapping[int, Opened], ids: Json
    ) -> bool:
        """Otherwise the error is sent here: the reader waits until it is written and reads no further frame."""
        number = ids["callId"] if kind == "call" else ids["channelId"]
        if number in opened:
            raise InvalidRequest(f"{kind}Id: {number} is in use", param=f"{kind}Id")
        error: AtelierError | None = None
        if endpoint not in known:
            error = unknown_endpoint(kind, endpoint, self._namespace.name, known)
        elif self._admission.draining:
            error = Draining()
        elif len(opened) >= (MOST_CALLS if kind == "call" else MOST_CHANNELS):
            error = Overloaded(f"This connection has {len(opened)} {kind}s open, which is the limit.")
        if error is not None:
            await self._send({**ids, "error": self._serialized(error, RequestedNames())})
        return error is None

    async def _begin(
        self, work: Coroutine[object, object, None], opened: MutableMapping[int, Opened], number: int
    ) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        if isinstance(channel := opened[number], Channel):
            channel.task = task

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            del opened[number]

        task.add_done_callback(ended)
        await asyncio.sleep(0)  # let the task start: if cancelled before that, it would send no error

    async def _run(self, context: CallContext, endpoint: str, answer: Callable[[], Awaitable[None]], ids: Json) -> None:
        status = 200
        try:
            status = await self._status(context, answer, ids)
        except (asyncio.CancelledError, WebSocketDisconnect) as gone:
            context.account.error, status = "client_gone", CLIENT_CLOSED_REQUEST
            if isinstance(gone, asyncio.CancelledError):
                raise
        finally:
            route = f"/{self._namespace.name}#{endpoint}"
            record(self._metrics, context.account, route, route, status)

    async def _status(self, context: CallContext, answer: Callable[[], Awaitable[None]], ids: Json) -> int:
        """The equivalent HTTP status, once the work is done or its error sent."""
        try:
            await answer()
        except WebSocketDisconnect:
            raise
        except AtelierError as error:
            failure = error
        except Exception:
            _log.exception("call_failed", id=context.account.request_id)
            failure = AtelierError()
        else:
            return 200
        context.account.error = failure.code
        await self._send({**ids, "error": self._serialized(failure, context.requested)})
        return failure.status

    async def _send(self, message: Json) -> None:
        """Raises WebSocketDisconnect if either side has closed the socket."""
        text = orjson.dumps(message).decode()
        async with self._writing:
            if self._websocket.application_state is not WebSocketState.CONNECTED:
                raise WebSocketDisconnect()
            try:
                await self._websocket.send_text(text)
            except RuntimeError:  # raised by the server for a socket that it is closing itself
                raise WebSocketDisconnect() from None

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(GOODBYE_SECONDS), self._writing:
                if self._websocket.application_state is WebSocketState.CONNECTED:
                    await self._websocket.close(code, reason)

    async def _end_work(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _origin(self, account: Account) -> Origin:
        return Origin(account.request_id, self._fairness_key)

    def _serialized(self, error: AtelierError, requested: RequestedNames) -> Json:
        return serialized_error(error, requested, self._watcher.snapshot)


def check_key(key: ServerKey | None, websocket: WebSocket, frame: Json) -> None:
    """Checks the first frame, unless the handshake contained the key or none is required.

    Raises Unauthenticated, or InvalidRequest for a frame of another form.
    """
    auth = parsed(AuthFrame, frame)
    if key is None or websocket.scope.get(KEY_SHOWN):
        return
    # Newer clients of LM Studio split its tokens (sk-lm-IDENTIFIER:PASSKEY) into identifier and passkey.
    whole = f"sk-lm-{auth.client_identifier}:{auth.client_passkey}"
    if not key.is_among(form.encode() for form in (auth.client_passkey, whole)):
        raise Unauthenticated('Send the server\'s key as clientPasskey, or as "Authorization: Bearer KEY".')


def parse_json(text: str) -> Json:
    """A frame. Raises InvalidRequest if it is not a JSON object."""
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The frame is not valid JSON ({error}).") from None
    if not isinstance(frame, dict):
        raise InvalidRequest("The frame must be an object.")
    return frame
