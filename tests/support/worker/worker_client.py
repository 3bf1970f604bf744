"""A gateway's side of a worker's Generate stream, for tests that talk to a worker directly."""

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc.aio
import orjson

from atelier.launch import LaunchSpec
from atelier.rpc import open_channel, token_metadata
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceStub

WAIT_SECONDS = 30.0


class WorkerClient:
    """`async with WorkerClient(spec) as client`: a channel, its stub and one Generate stream."""

    def __init__(self, spec: LaunchSpec, token: str | None = None, patience: float = WAIT_SECONDS) -> None:
        """`patience`: longest wait for the next event, in seconds."""
        self._patience = patience
        self._spec = spec
        self.metadata = token_metadata(spec.token if token is None else token)
        self.channel = open_channel(spec.address)
        self.stub = InferenceStub(self.channel)
        self._events: dict[int, asyncio.Queue[pb.Event]] = {}
        self._writing = asyncio.Lock()
        self.steps: list[pb.Step] = []

    async def __aenter__(self) -> Self:
        self._call = self.stub.Generate(metadata=self.metadata)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        await asyncio.wait([self._reader])
        await self.channel.close()

    async def _read(self) -> None:
        try:
            async for step in self._call:
                self.steps.append(step)
                for event in step.events:
                    self._queue(event.call).put_nowait(event)
        except (asyncio.CancelledError, grpc.aio.AioRpcError):
            pass

    def _queue(self, call: int) -> "asyncio.Queue[pb.Event]":
        return self._events.setdefault(call, asyncio.Queue())

    async def submit(self, call: int, user: str = "", **fields: Any) -> None:
        """Submit a chat of one user message, or whatever prompt `fields` gives."""
        fields.setdefault("instance_id", self._spec.instance_id)
        if not {"text", "tokens", "chat"} & fields.keys():
            fields["chat"] = pb.Chat(messages_json=orjson.dumps([{"role": "user", "content": user}]))
        await self._write(pb.Command(submit=pb.Submit(call=call, **fields)))

    async def cancel(self, call: int) -> None:
        await self._write(pb.Command(cancel=pb.Cancel(call=call)))

    async def _write(self, command: pb.Command) -> None:
        async with self._writing:  # gRPC takes one write at a time
            await self._call.write(command)

    async def next(self, call: int) -> pb.Event:
        return await asyncio.wait_for(self._queue(call).get(), self._patience)

    async def finish(self, call: int, choices: int = 1) -> tuple[list[str], list[pb.Event]]:
        """The choices' texts, and the events that ended them."""
        texts: list[str] = [""] * choices
        ends: list[pb.Event] = []
        while len(ends) < choices:
            event = await self.next(call)
            if event.HasField("delta"):
                texts[event.choice] += event.delta.text
            elif event.HasField("failed"):
                return texts, [event]
            elif event.HasField("finished"):
                ends.append(event)
        return texts, ends
