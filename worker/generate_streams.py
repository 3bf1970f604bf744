"""The Generate streams of gateways: each receives the events of its own calls."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from atelier.generation_types import Finished
from protos import inference_pb2 as pb
from worker.engine.interface import Emitted, Failed, Source
from worker.wire import event_message
from worker.worker_status import Activity


class GenerateStream:
    """One gateway's stream. Used on the event loop alone."""

    def __init__(self, number: int, activity: Activity) -> None:
        self.number = number
        self._activity = activity
        self._open: dict[int, int] = {}  # call -> choices in progress
        self._pending: list[pb.Event] = []
        self._wake = asyncio.Event()
        self._ended = False

    def begin(self, call: int, choices: int) -> Source:
        """Register a call before it is submitted. Its events are delivered until every choice has ended."""
        self._open[call] = choices
        self._activity.begin()
        return Source(self.number, call)

    def is_open(self, call: int) -> bool:
        return call in self._open

    def forget(self, call: int) -> None:
        if self._open.pop(call, None) is not None:
            self._activity.end()
            self._wake.set()

    def open_calls(self) -> list[int]:
        return list(self._open)

    def push(self, call: int, event: pb.Event) -> None:
        self._pending.append(event)
        self._wake.set()

    def deliver(self, emitted: Emitted) -> None:
        source, event = emitted
        if source.call not in self._open:
            return
        if isinstance(event, (Finished, Failed)):
            self._count_end(source.call, event)
        self.push(source.call, event_message(source.call, event))

    def _count_end(self, call: int, event: object) -> None:
        if isinstance(event, Finished):
            self._open[call] -= 1
        if isinstance(event, Failed) or self._open[call] == 0:
            self.forget(call)

    def end(self) -> None:
        """There are no more commands: `steps` ends after the open calls."""
        self._ended = True
        self._wake.set()

    async def steps(self) -> AsyncIterator[pb.Step]:
        """One message at a time, with all events since the last."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._pending:
                events, self._pending = self._pending, []
                yield pb.Step(events=events)
            if self._ended and not self._open and not self._pending:
                return


class GenerateStreams:
    """The open streams of this worker."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._numbers = itertools.count()
        self._streams: dict[int, GenerateStream] = {}

    def open(self) -> GenerateStream:
        stream = GenerateStream(next(self._numbers), self._activity)
        self._streams[stream.number] = stream
        return stream

    def close(self, stream: GenerateStream) -> None:
        del self._streams[stream.number]

    def publish(self, step: Sequence[Emitted]) -> None:
        """Called by the engine, on the event loop, once per decode step."""
        for emitted in step:
            if stream := self._streams.get(emitted[0].stream):
                stream.deliver(emitted)

    def end(self) -> None:
        """End every stream after its open calls."""
        for stream in self._streams.values():
            stream.end()
