"""A socket whose client does not read, without a network."""

import asyncio
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from starlette.websockets import WebSocket

from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.core.call import Account
from gateway.dialects.lmstudio_sdk import sdk_connection
from gateway.dialects.lmstudio_sdk.sdk_connection import Socket
from gateway.dialects.lmstudio_sdk.sdk_context import CallContext, Namespace
from gateway.fleet.snapshot import Snapshot

PATIENCE = 5.0


class SilentClient:
    """Sends call after call, and reads only the handshake."""

    def __init__(self) -> None:
        self.asked = 0
        self.reads = True
        self.gone = False
        self.stuck = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.asked == 0:
            self.asked = 1
            return {"type": "websocket.connect"}
        if self.gone:
            return {"type": "websocket.disconnect", "code": 1006}
        self.asked += 1
        call = {"type": "rpcCall", "endpoint": "echo", "callId": self.asked}
        return {"type": "websocket.receive", "text": orjson.dumps(call if self.asked > 2 else {}).decode()}

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send" and self.asked > 2:
            self.stuck.set()
            await asyncio.Event().wait()


class KnownWatcher:
    snapshot = Snapshot()


async def echo(parameter: Any, context: CallContext) -> str:
    return "echo"


@pytest.mark.parametrize(
    ("one_by_one", "most"), [(False, sdk_connection.MOST_CALLS), (True, 0)], ids=["many calls", "one by one"]
)
async def test_nothing_is_read_from_a_client_that_does_not_read(one_by_one: bool, most: int) -> None:
    client = SilentClient()
    scope = {"type": "websocket", "path": "/llm", "headers": [], "atelier.account": Account("r")}
    socket = Socket(
        WebSocket(scope, client.receive, client.send),  # type: ignore[arg-type]
        Namespace("llm", "llm", {"echo": echo}, one_by_one=one_by_one),
        lambda websocket, frame: None,
        KnownWatcher(),  # type: ignore[arg-type]
        Admission(10),
        GatewayMetrics(CollectorRegistry()),
    )
    running = asyncio.create_task(socket.run())
    await asyncio.wait_for(client.stuck.wait(), PATIENCE)
    for _ in range(10 * sdk_connection.MOST_CALLS):  # turns of the event loop in which the server could read more
        await asyncio.sleep(0)
    assert client.asked == most + 3  # the handshake, the call whose reply is blocked, and those allowed beside it
    running.cancel()
    await asyncio.wait([running], timeout=PATIENCE)
    assert running.cancelled()
    assert not socket._tasks
