"""A long prompt that arrives among running streams: how much it slows them, and they it."""

import asyncio
import time
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.client import user
from tests.bench.outcomes import NoFigures, Result
from tests.bench.percentiles import gaps, median, percentile, ratio
from tests.bench.trace import Trace
from tests.bench.workloads.subject import Subject


@dataclass(frozen=True, slots=True)
class Newcomer:
    streams: int
    tokens: int  # of each running stream: enough to outlast the newcomer's prompt
    words: int  # of each running stream's prompt
    long_words: int  # of the newcomer's
    settled_pieces: int = 24  # that each stream has received when the newcomer comes

    async def run(self, subject: Subject) -> Result:
        alone = await self._newcomer(subject, "alone")
        running = Settled(self.streams, self.settled_pieces)
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self._stream(subject, n, running)) for n in range(self.streams)]
            await running.all.wait()
            came = time.monotonic()
            newcomer = await self._newcomer(subject, "among")
        traces = [task.result() for task in others]
        tokens = sum(trace.tokens for trace in [alone, newcomer, *traces])
        return Result(newcomer_figures(alone, newcomer, traces, came), tokens)

    async def _newcomer(self, subject: Subject, place: str) -> Trace:
        words = subject.words(place)
        return await subject.client.chat([user(f"Sum this up: {words.draw(self.long_words)}")], words, 16)

    async def _stream(self, subject: Subject, number: int, running: "Settled") -> Trace:
        words = subject.words(number)
        prompt = user(f"Go on with a long story about {words.draw(self.words)}")
        return await subject.client.chat([prompt], words, self.tokens, lambda: running.piece(number))


class Settled:
    """Knows when every stream has received so many pieces."""

    def __init__(self, streams: int, pieces: int) -> None:
        self._left = dict.fromkeys(range(streams), pieces)
        self.all = asyncio.Event()

    def piece(self, number: int) -> None:
        self._left[number] -= 1
        if max(self._left.values()) <= 0:
            self.all.set()


def newcomer_figures(alone: Trace, newcomer: Trace, others: list[Trace], came: float) -> dict[str, float]:
    before = [gap for trace in others for gap in gaps([at for at in trace.arrivals if at < came])]
    during = [gap for trace in others for gap in overlapping_gaps(trace.arrivals, came, newcomer.first)]
    if not before or not during:
        raise NoFigures("the streams ended before the long prompt came")
    longest, usual = percentile(during, 1), median(before)
    return {
        "newcomer_ttft_alone": alone.time_to_first_token,
        "newcomer_ttft_among": newcomer.time_to_first_token,
        "newcomer_slowdown": ratio(newcomer.time_to_first_token, alone.time_to_first_token),
        "others_median_gap_before": usual,
        "others_p99_gap_during": percentile(during, 0.99),
        "others_longest_gap_during": longest,
        "others_longest_over_median_gap": ratio(longest, usual),
        "long_prompt_tokens": float(newcomer.prompt_tokens),
    }


def overlapping_gaps(arrivals: tuple[float, ...], begin: float, end: float) -> list[float]:
    """The gaps of a stream that overlap a time, in full length."""
    return [b - a for a, b in pairwise(arrivals) if b > begin and a < end]
