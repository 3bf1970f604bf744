"""Clients of LM Studio's SDK protocol: the unmodified package, and bare frames."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import lmstudio
from websockets.asyncio.client import ClientConnection, connect

from tests.support.gateway.gateway_server import PATIENCE, RunningGateway

T = TypeVar("T")
AUTH = {"authVersion": 1, "clientIdentifier": "test", "clientPasskey": "none"}


async def with_client(
    gateway: RunningGateway, work: Callable[[lmstudio.Client], T], kind: type[lmstudio.Client] = lmstudio.Client
) -> T:
    """The result of work with a blocking client, done in a separate thread."""

    def run() -> T:
        with kind(f"127.0.0.1:{gateway.port}") as client:
            return work(client)

    return await asyncio.wait_for(asyncio.to_thread(run), PATIENCE)


@contextlib.asynccontextmanager
async def async_client(gateway: RunningGateway) -> AsyncIterator[lmstudio.AsyncClient]:
    async with asyncio.timeout(PATIENCE), lmstudio.AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        yield client


class Frames:
    """A socket on which frames are written by hand."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> Any:
        return json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE))

    async def receive_until(self, kind: str) -> list[Any]:
        """Every frame up to the first of this type, or with a message of it."""
        frames = [await self.receive()]
        while kind not in (frames[-1]["type"], frames[-1].get("message", {}).get("type")):
            frames.append(await self.receive())
        return frames

    async def call(self, endpoint: str, parameter: Any = None, number: int = 1) -> Any:
        await self.send(type="rpcCall", endpoint=endpoint, callId=number, parameter=parameter)
        return await self.receive()

    async def open(self, endpoint: str, parameter: Any, number: int = 1) -> None:
        await self.send(type="channelCreate", endpoint=endpoint, channelId=number, creationParameter=parameter)

    async def cancel(self, number: int = 1) -> None:
        await self.send(type="channelSend", channelId=number, message={"type": "cancel"})

    async def closed(self) -> int | None:
        """The code of the socket's end."""
        await asyncio.wait_for(self.connection.wait_closed(), PATIENCE)
        return self.connection.close_code


@contextlib.asynccontextmanager
async def bare_socket(gateway: RunningGateway, namespace: str = "llm", **options: Any) -> AsyncIterator[Frames]:
    """Before its first frame."""
    async with connect(f"ws://127.0.0.1:{gateway.port}/{namespace}", proxy=None, **options) as connection:
        yield Frames(connection)


@contextlib.asynccontextmanager
async def open_socket(gateway: RunningGateway, namespace: str = "llm", **options: Any) -> AsyncIterator[Frames]:
    async with bare_socket(gateway, namespace, **options) as frames:
        await frames.send(**AUTH)
        assert await frames.receive() == {"success": True}
        yield frames


def prediction(text: str, model: str = "tiny", **fields: Any) -> dict[str, Any]:
    """The message that opens a prediction channel; `fields` by the last part of their keys."""
    config = [{"key": f"llm.prediction.{key}", "value": value} for key, value in fields.items()]
    return {
        "modelSpecifier": {"type": "query", "query": {"identifier": model}},
        "history": {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
        "predictionConfigStack": {"layers": [{"layerName": "apiOverride", "config": {"fields": config}}]},
    }
