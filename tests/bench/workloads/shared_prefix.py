"""Requests that begin with the same words: first words that the server has not had, then the same ones again."""

from dataclasses import dataclass

from tests.bench.client import system, user
from tests.bench.outcomes import Result
from tests.bench.stream_figures import stream_figures
from tests.bench.trace import Trace
from tests.bench.workloads.at_once import answered
from tests.bench.workloads.subject import Subject

SHOWN = ("tokens_per_second", "ttft_median", "ttft_p99", "longest_gap", "prompt_tokens")


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """`streams` at once until `requests` are answered, twice."""

    streams: int
    requests: int
    tokens: int  # of each answer
    words: int  # of each request's own
    shared_words: int  # that all requests of the turn begin with

    async def run(self, subject: Subject) -> Result:
        cold = await self._answers(subject, "cold")
        warm = await self._answers(subject, "warm")
        figures = {**prefix_figures("cold", cold), **prefix_figures("warm", warm)}
        return Result(figures, sum(trace.tokens for trace in [*cold, *warm]))

    async def _answers(self, subject: Subject, phase: str) -> list[Trace]:
        return await answered(self.streams, self.requests, lambda number: self._ask(subject, phase, number))

    async def _ask(self, subject: Subject, phase: str, number: int) -> Trace:
        shared = system(f"You know these words: {subject.words('shared').draw(self.shared_words)}")
        words = subject.words(phase, number)
        own = user(f"Go on with a long story about {words.draw(self.words)}")
        return await subject.client.chat([shared, own], words, self.tokens)


def prefix_figures(phase: str, traces: list[Trace]) -> dict[str, float]:
    figures = stream_figures(traces)
    return {f"{phase}_{name}": figures[name] for name in SHOWN}
