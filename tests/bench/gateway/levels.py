"""What the gateway does at a number of streams, and what it adds to the first token of one."""

import time
from dataclasses import dataclass

from tests.bench.exchange import exchange
from tests.bench.gateway.reader import BODY, PATH, Counted
from tests.bench.gateway.readers import read_streams
from tests.bench.gateway.stage import Stage, stage
from tests.bench.outcomes import NoFigures
from tests.bench.percentiles import median
from tests.bench.process_tree import cpu_seconds
from tests.bench.trace import events
from tests.support.worker.worker_client import WorkerClient

MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Level:
    """CPU seconds are those of the whole level, its requests' beginnings and ends included."""

    streams: int
    tokens: int
    events: int  # with text; fewer than tokens where the gateway joined what had piled up
    seconds: float  # from the first byte to the last
    gateway_cpu: float
    worker_cpu: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_core_second(self) -> float:
        return self.tokens / self.gateway_cpu

    @property
    def microseconds_per_token(self) -> float:
        return self.gateway_cpu / self.tokens * MICROSECONDS

    @property
    def microseconds_per_event(self) -> float:
        return self.gateway_cpu / self.events * MICROSECONDS


async def measure_level(streams: int, tokens: int, step_seconds: float) -> Level:
    async with stage(streams, tokens, step_seconds) as at:
        await exchange(at.port, PATH, {**BODY, "max_tokens": 4})  # the first request connects to the worker
        before = cpu_seconds(at.gateway), cpu_seconds(at.worker)
        counted = await read_streams(at.port, streams)
        after = cpu_seconds(at.gateway), cpu_seconds(at.worker)
    return level(streams, tokens, counted, after[0] - before[0], after[1] - before[1])


def level(streams: int, tokens: int, counted: Counted, gateway_cpu: float, worker_cpu: float) -> Level:
    if counted.whole_streams != streams:
        raise NoFigures(f"{counted.whole_streams} of {streams} streams were whole")
    seconds = counted.last - counted.first
    return Level(streams, streams * tokens, counted.text_events, seconds, gateway_cpu, worker_cpu)


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Medians in seconds, of requests taken in turns."""

    through_gateway: float
    from_worker: float

    @property
    def added(self) -> float:
        return self.through_gateway - self.from_worker


async def measure_first_token(requests: int) -> FirstToken:
    async with stage(1, 4, 0.0) as at, WorkerClient(at.spec) as worker:
        pairs = [(await _through_gateway(at), await _from_worker(worker, call)) for call in range(requests)]
    through, direct = zip(*pairs[1:], strict=True)  # the first ones connect
    return FirstToken(median(through), median(direct))


async def _through_gateway(at: Stage) -> float:
    done = await exchange(at.port, PATH, BODY)
    for arrived, event in events(done.pieces):
        if event["choices"] and event["choices"][0]["delta"].get("content"):
            return arrived - done.sent
    raise NoFigures(f"a stream without text: HTTP {done.status}")


async def _from_worker(worker: WorkerClient, call: int) -> float:
    sent = time.monotonic()
    await worker.submit(call, "Go on.")
    first = None
    while True:
        event = await worker.next(call)
        if first is None and event.HasField("delta"):
            first = time.monotonic() - sent
        if event.HasField("finished") and first is not None:
            return first
        if event.HasField("failed"):
            raise NoFigures(event.failed.error.message)
