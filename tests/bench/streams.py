"""`python -m tests.bench.streams`: tokens/s through the gateway, one stream against several.

Starts a server of its own unless --url names one. Every request has words of its own, so nothing
is cached by accident; a round measures each number of streams once, and medians of rounds are shown.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.server_process import MODEL, put_starter, serving
from tests.support.starter_model import starter_file

TOPICS = (
    "rivers",
    "bread",
    "clocks",
    "violins",
    "snow",
    "maps",
    "bees",
    "harbours",
    "glass",
    "trains",
    "salt",
    "moons",
)


@dataclass(frozen=True, slots=True)
class Stream:
    """What one client saw. Times in seconds from the start of the round."""

    tokens: int
    first: float
    end: float


@dataclass(frozen=True, slots=True)
class Round:
    streams: list[Stream]

    @property
    def tokens_per_second(self) -> float:
        return sum(s.tokens for s in self.streams) / max(s.end for s in self.streams)

    @property
    def time_to_first_token(self) -> float:
        return statistics.median(s.first for s in self.streams)

    @property
    def spread(self) -> float:
        """The slowest stream's time over the fastest one's: 1 is perfectly fair."""
        return max(s.end for s in self.streams) / min(s.end for s in self.streams)


def main() -> None:
    options = _options()
    with _server(options.url) as url:
        asyncio.run(measure(url, options))


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.streams", description=__doc__)
    parser.add_argument("--url", help="a running server; by default one is started")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--streams", default="1,4,8", help="numbers of streams, by commas; the first is the measure")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as directory:
        put_starter(Path(directory) / "home", starter_file())
        with serving(Path(directory) / "home") as server:
            yield server.url


async def measure(url: str, options: Any) -> None:
    counts = [int(count) for count in options.streams.split(",")]
    rounds: dict[int, list[Round]] = {count: [] for count in counts}
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        await run_stream(client, options, 0, time.monotonic())  # loads the model
        for number in range(options.rounds):
            for count in counts:
                rounds[count].append(await run_round(client, options, count, number))
    report(rounds)


async def run_round(client: httpx.AsyncClient, options: Any, count: int, number: int) -> Round:
    started = time.monotonic()
    numbers = [1 + number * 1000 + count * 100 + i for i in range(count)]
    return Round(await asyncio.gather(*(run_stream(client, options, n, started) for n in numbers)))


async def run_stream(client: httpx.AsyncClient, options: Any, number: int, started: float) -> Stream:
    body = {
        "model": options.model,
        "messages": [{"role": "user", "content": f"{number}: tell me about {TOPICS[number % len(TOPICS)]}."}],
        "max_tokens": options.tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first, tokens = 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not first and '"content":"' in line and '"content":""' not in line:
                first = time.monotonic() - started
            if '"usage":{' in line:
                tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    return Stream(tokens, first, time.monotonic() - started)


def report(rounds: dict[int, list[Round]]) -> None:
    """Medians; the ratio is that of each round to the first column of the same round."""
    base = [r.tokens_per_second for r in next(iter(rounds.values()))]
    print(f"{'streams':>7}  {'tokens/s':>8}  {'ratio':>5}  {'TTFT s':>6}  {'slowest/fastest':>15}")
    for count, measured in rounds.items():
        rate = statistics.median(r.tokens_per_second for r in measured)
        ratio = statistics.median(r.tokens_per_second / b for r, b in zip(measured, base, strict=True))
        first = statistics.median(r.time_to_first_token for r in measured)
        spread = statistics.median(r.spread for r in measured)
        print(f"{count:>7}  {rate:>8.1f}  {ratio:>5.2f}  {first:>6.2f}  {spread:>15.2f}")


if __name__ == "__main__":
    main()
