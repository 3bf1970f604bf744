"""One client's WebSocket: frames in, the calls and channels that they open, frames out."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from atelier.errors import AtelierError, Draining, InvalidRequest, Overloaded
from atelier.json_types import Json
from atelier.metrics import GatewayMetrics
from gateway.core.account import Account
from gateway.core.admission import Admission
from gateway.core.call import Origin
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Namespace, Work
from gateway.dialects.lmstudio_sdk.sdk_errors import Named, parsed, serialized_error, unknown_endpoint
from gateway.dialects.lmstudio_sdk.sdk_frames import ChannelCreate, ChannelSend, RpcCall
from gateway.dialects.reply import fairness_key
from gateway.fleet.watcher import Watcher
from gateway.http.disconnect import CLIENT_CLOSED_REQUEST
from gateway.http.request_log import new_id, record

AUTH_SECONDS = 10.0  # for the first frame
GOODBYE_SECONDS = 1.0  # for the last ones, to a client that does not read
MOST_CALLS = 128  # open at once on one socket
MOST_CHANNELS = 128
LARGE_CHARACTERS = 2**20  # of a frame whose parsing would be felt by the streams

# Codes of a WebSocket's end, by RFC 6455 and IANA's list.
UNSUPPORTED_DATA, POLICY_VIOLATION, SERVICE_RESTART = 1003, 1008, 1012

_log = structlog.get_logger(__name__)


class Socket:
    """Owned by the connection's task, which reads; each open call and channel has a task of its own.

    connected --first frame--> authenticated --calls, channels--> closed, by either side: all its work ends

    One message is written at a time and waits while the client's socket is full, so that a client
    which does not read costs one message for each call or channel, of which there are only so many.
    """

    def __init__(
        self,
        websocket: WebSocket,
        namespace: Namespace,
        check_key: Callable[[WebSocket, Any], None],
        watcher: Watcher,
        admission: Admission,
        metrics: GatewayMetrics,
    ) -> None:
        """`check_key`: raises Unauthenticated when neither the socket's head nor its first frame has the key."""
        self._websocket = websocket
        self._namespace = namespace
        self._check_key = check_key
        self._watcher = watcher
        self._admission = admission
        self._metrics = metrics
        self._fairness_key = fairness_key(websocket)
        self._writing = asyncio.Lock()
        self._calls: dict[int, Work] = {}
        self._channels: dict[int, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Return when the client is gone, or was sent away."""
        try:
            await self._websocket.accept()
            if await self._authenticate():
                await self._read()
        except WebSocketDisconnect:
            pass
        finally:
            await self._end_work()

    async def drain(self) -> None:
        """Let the work that was failed already say so, then close."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE_SECONDS)
        await self._close(SERVICE_RESTART, "The server is stopping.")

    async def _authenticate(self) -> bool:
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                text = await self._receive()
        except TimeoutError:
            await self._close(POLICY_VIOLATION, "The first frame did not come in time.")
            return False
        if text is None:
            return False
        try:
            self._check_key(self._websocket, parse_json(text))
        except AtelierError as error:
            account: Account = self._websocket.scope["atelier.account"]
            account.error = error.code
            await self._send({"success": False, "error": self._serialized(error, Named())})
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
        """The next frame; None when there are no more."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        if (text := message.get("text")) is None:
            await self._close(UNSUPPORTED_DATA, "Only text frames are understood.")
            return None
        return str(text)

    async def _take(self, frame: Json) -> None:
        match frame.get("type"):
            case "rpcCall":
                await self._open_call(parsed(RpcCall, frame))
            case "channelCreate":
                await self._open_channel(parsed(ChannelCreate, frame))
            case "channelSend":
                self._pass_on(parsed(ChannelSend, frame))
            case "keepAlive":  # of LM Studio's client for JavaScript
                await self._send({"type": "keepAliveAck"})
            case other:
                raise InvalidRequest(f"type: there are no frames of the type {str(other)[:100]} here", param="type")

    async def _open_call(self, frame: RpcCall) -> None:
        number, endpoint = frame.call_id, frame.endpoint
        ids = {"type": "rpcError", "callId": number}
        account = Account(new_id())
        work = Work(account=account, origin=self._origin(account), domain=self._namespace.domain)
        if not await self._may_open("call", endpoint, self._namespace.calls, self._calls, ids):
            return
        handler = self._namespace.calls[endpoint]

        async def answer() -> None:
            result = await handler(frame.parameter, work)
            told = {} if result is None else {"result": result}
            await self._send({"type": "rpcResult", "callId": number, **told})

        self._calls[number] = work
        await self._begin(self._carry_out(work, endpoint, answer, ids), self._calls, number)
        if self._namespace.one_by_one and self._tasks:
            await asyncio.wait(self._tasks)

    async def _open_channel(self, frame: ChannelCreate) -> None:
        number, endpoint = frame.channel_id, frame.endpoint
        ids = {"type": "channelError", "channelId": number}

        async def send(message: Any) -> None:
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
                if not channel.was_stopped():
                    raise
            await self._send({"type": "channelClose", "channelId": number})

        self._channels[number] = channel
        await self._begin(self._carry_out(channel, endpoint, answer, ids), self._channels, number)

    def _pass_on(self, frame: ChannelSend) -> None:
        """All that clients say on the channels there are is that they cancel. It may cross the channel's end."""
        if frame.message.type != "cancel":
            raise InvalidRequest(f"message.type: must be cancel, not {frame.message.type[:100]}", param="message.type")
        if (channel := self._channels.get(frame.channel_id)) is not None:
            channel.stop()

    async def _may_open(
        self, kind: str, endpoint: str, known: Collection[str], opened: MutableMapping[int, Any], ids: Json
    ) -> bool:
        """Otherwise it is refused here: the reader waits until that is written, and reads nothing more meanwhile."""
        number = ids["callId"] if kind == "call" else ids["channelId"]
        if number in opened:
            raise InvalidRequest(f"{kind}Id: {number} is in use", param=f"{kind}Id")
        error: AtelierError | None = None
        if endpoint not in known:
            error = unknown_endpoint(kind, endpoint, self._namespace.name, known)
        elif self._admission.draining:
            error = Draining()
        elif len(opened) >= (MOST_CALLS if kind == "call" else MOST_CHANNELS):
            error = Overloaded(f"This connection has {len(opened)} {kind}s open, which is as many as it may.")
        if error is not None:
            await self._send({**ids, "error": self._serialized(error, Named())})
        return error is None

    async def _begin(self, work: Any, opened: MutableMapping[int, Any], number: int) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        if isinstance(channel := opened[number], Channel):
            channel.task = task

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            del opened[number]

        task.add_done_callback(ended)
        await asyncio.sleep(0)  # it starts: what is cancelled before could not say so

    async def _carry_out(self, work: Work, endpoint: str, answer: Callable[[], Awaitable[None]], ids: Json) -> None:
        status = 200
        try:
            status = await self._answered(work, answer, ids)
        except (asyncio.CancelledError, WebSocketDisconnect) as gone:
            work.account.error, status = "client_gone", CLIENT_CLOSED_REQUEST
            if isinstance(gone, asyncio.CancelledError):
                raise
        finally:
            route = f"/{self._namespace.name}#{endpoint}"
            record(self._metrics, work.account, route, route, status)

    async def _answered(self, work: Work, answer: Callable[[], Awaitable[None]], ids: Json) -> int:
        """The status that the same would have in HTTP."""
        try:
            await answer()
        except WebSocketDisconnect:
            raise
        except AtelierError as error:
            failure = error
        except Exception:
            _log.exception("call_failed", id=work.account.request_id)
            failure = AtelierError()
        else:
            return 200
        work.account.error = failure.code
        await self._send({**ids, "error": self._serialized(failure, work.named)})
        return failure.status

    async def _send(self, message: Json) -> None:
        """WebSocketDisconnect when the socket is closed, by whichever side."""
        text = orjson.dumps(message).decode()
        async with self._writing:
            if self._websocket.application_state is not WebSocketState.CONNECTED:
                raise WebSocketDisconnect()
            try:
                await self._websocket.send_text(text)
            except RuntimeError:  # the server's word for a socket that it is closing by itself
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

    def _serialized(self, error: AtelierError, named: Named) -> Json:
        return serialized_error(error, named, self._watcher.snapshot)


def parse_json(text: str) -> Json:
    """A frame; InvalidRequest when it is no object in JSON."""
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The frame is not valid JSON ({error}).") from None
    if not isinstance(frame, dict):
        raise InvalidRequest("The frame must be an object.")
    return frame
