"""A long prompt that arrives among running streams: how much it slows them, and they it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.client import user
from tests.bench.outcomes import NoFigures, Result
from tests.bench.percentiles import gaps, median, percentile, ratio
from tests.bench.trace import Trace
from tests.bench.workloads.lone_prompt import ask_long
from tests.bench.workloads.subject import Subject

ONE_STEP_SECONDS = 0.001  # pieces that come closer together are one piece to a reader


@dataclass(frozen=True, slots=True)
class Newcomer:
    streams: int
    tokens: int  # of each running stream, at most: they are stopped when the newcomer has its answer
    words: int  # of each running stream's prompt
    long_words: int  # of the newcomer's
    settled_pieces: int = 24  # that each stream has received when the newcomer comes

    async def run(self, subject: Subject) -> Result:
        alone = await ask_long(subject, self.long_words, "alone")
        running = Arrivals(self.streams)
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self._stream(subject, n, running)) for n in range(self.streams)]
            await running.all_have(self.settled_pieces)
            came = time.monotonic()
            newcomer = await ask_long(subject, self.long_words, "among")
            await running.all_since(time.monotonic())  # the last gap counts too
            for each in others:
                each.cancel()
        tokens = alone.tokens + newcomer.tokens + sum(map(len, running.times))
        return Result(newcomer_figures(alone, newcomer, running.times, came), tokens)

    async def _stream(self, subject: Subject, number: int, running: "Arrivals") -> None:
        """Returns when it is cancelled; NoFigures when it ends before."""
        words = subject.words(number)
        prompt = user(f"Go on with a long story about {words.draw(self.words)}")
        with suppress(asyncio.CancelledError):
            await subject.client.chat([prompt], words, self.tokens, lambda: running.note(number))
            raise NoFigures("a running stream ended before the long prompt had its answer")


class Arrivals:
    """When the pieces of each stream came."""

    def __init__(self, streams: int) -> None:
        self.times: list[list[float]] = [[] for _ in range(streams)]
        self._arrived = asyncio.Event()

    def note(self, stream: int) -> None:
        now, times = time.monotonic(), self.times[stream]
        if not times or now - times[-1] > ONE_STEP_SECONDS:
            times.append(now)
            self._arrived.set()

    async def all_have(self, pieces: int) -> None:
        await self._until(lambda: all(len(times) >= pieces for times in self.times))

    async def all_since(self, moment: float) -> None:
        """Return when every stream has received a piece after this moment."""
        await self._until(lambda: all(times[-1] > moment for times in self.times))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._arrived.clear()
            await self._arrived.wait()


def newcomer_figures(alone: Trace, newcomer: Trace, others: Sequence[Sequence[float]], came: float) -> dict[str, float]:
    """`others`: the times of arrival of each running stream."""
    before = [gap for times in others for gap in gaps([at for at in times if at < came])]
    during = [gap for times in others for gap in overlapping_gaps(times, came, newcomer.first)]
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


def overlapping_gaps(arrivals: Sequence[float], begin: float, end: float) -> list[float]:
    """The gaps of a stream that overlap a time, in full length."""
    return [b - a for a, b in pairwise(arrivals) if b > begin and a < end]
