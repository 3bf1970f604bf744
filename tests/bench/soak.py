"""`python -m tests.bench.soak`: minutes of mixed, cancelled and failing requests against one worker.

Ends well when every sequence is free, memory has not grown since the first tenth of the time, and a
text takes as long as before.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from atelier.launch import LaunchSpec
from atelier.rpc import open_channel
from atelier.settings import Load
from tests.bench.bench_models import STARTER, add_load_option, add_model_option
from tests.bench.words import Words
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import supervise, worker_process

CLIENTS = 12  # more than there are slots
SETTINGS = {"context_length": 2048, "cache_ram": 64}  # MiB: full within the first tenth, so that memory can be compared
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
IMPOSSIBLE = json.dumps({"type": "string", "minLength": 5, "maxLength": 2})
PATIENCE = 180.0  # seconds: twelve clients keep a small machine busy for tens of seconds a call
MIB = 2**20
MOST_GROWTH = 64  # MiB: pools of allocators, not leaks
MOST_DRIFT = 1.3  # of the time that a text takes


class Soak:
    """One run. Every client submits one call after the other until the time is up."""

    def __init__(self, client: WorkerClient, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._calls = 1000
        self.outcomes: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._work(end))

    async def _work(self, end: float) -> None:
        while time.monotonic() < end:
            self._calls += 1
            kind = self._random.choice(
                ("chat", "chat", "long", "schema", "choices", "cancelled", "impossible", "too long")
            )
            await self._call(kind, self._calls)
            self.outcomes[kind] += 1

    async def _call(self, kind: str, call: int) -> None:
        words = Words("soak", call)
        sampling: dict[str, Any] = {"max_tokens": self._random.randint(1, 60), "seed": call}
        fields: dict[str, Any] = {}
        text = words.draw(self._random.choice((5, 40, 120)))
        if kind == "long":
            text = words.draw(500)
        elif kind == "schema":
            fields["json_schema"] = SCHEMA
        elif kind == "choices":
            fields["choices"] = 3
        elif kind == "impossible":
            fields["json_schema"] = IMPOSSIBLE
        elif kind == "too long":
            text = words.draw(3000)
        await self._client.submit(call, text, sampling=sampling, **fields)
        if kind == "cancelled":
            await self._client.next(call)
            await self._client.cancel(call)
            return
        _, ends = await self._client.finish(call, fields.get("choices", 1))
        assert ends[0].HasField("failed") == (kind in ("impossible", "too long")), (kind, ends)


async def text_seconds(client: WorkerClient, call: int) -> float:
    """How long 64 tokens take, alone: the median of five."""
    took = []
    for number in range(call, call + 5):
        started = time.monotonic()
        await client.submit(number, "Tell me a story.", sampling={"max_tokens": 64, "ignore_eos": True, "seed": 1})
        await client.finish(number)
        took.append(time.monotonic() - started)
    return statistics.median(took)


async def idle(spec: LaunchSpec) -> bool:
    """Whether the worker reports no running sequence, within ten seconds."""
    async with asyncio.timeout(10), open_channel(spec.address) as channel:
        async for status in supervise(channel, spec):
            if not status.active and not status.queued:
                return True
    return False


def resident(spec: LaunchSpec) -> float:
    """MiB of the worker's process."""
    for process in psutil.Process().children(recursive=True):
        if "worker" in process.cmdline() and "--spec" in process.cmdline():
            return float(process.memory_info().rss / MIB)
    raise LookupError(spec.instance_id)


async def soak(model: Path, load: dict[str, Any], minutes: float, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        launched = worker_process(Path(directory), model, Load(**{**SETTINGS, **load}))
        async with launched as spec, WorkerClient(spec, patience=PATIENCE) as client:
            run = Soak(client, seed)
            await run.run(minutes * 60 * 0.1)
            memory, before = resident(spec), await text_seconds(client, 1)
            await run.run(minutes * 60 * 0.9)
            free = await idle(spec)
            growth, after = resident(spec) - memory, await text_seconds(client, 100)
    print(f"calls {dict(run.outcomes)}")
    print(f"every sequence free: {free}")
    print(f"memory after a tenth of the time {memory:.0f} MiB, growth since {growth:+.0f} MiB")
    print(f"64 tokens alone: {before:.2f} s, at the end {after:.2f} s")
    return free and growth < MOST_GROWTH and after < before * MOST_DRIFT


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    add_model_option(parser, STARTER)
    add_load_option(parser)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    raise SystemExit(0 if asyncio.run(soak(options.model, options.load, options.minutes, options.seed)) else 1)


if __name__ == "__main__":
    main()
