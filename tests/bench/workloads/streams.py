"""Several streams at once, each with its own prompt."""

from dataclasses import dataclass

from tests.bench.client import user
from tests.bench.outcomes import Result
from tests.bench.stream_figures import stream_figures
from tests.bench.trace import Trace
from tests.bench.workloads.at_once import answered
from tests.bench.workloads.subject import Subject


@dataclass(frozen=True, slots=True)
class Streams:
    """`streams` at once until `requests` are answered."""

    streams: int
    requests: int
    tokens: int  # of each answer
    words: int  # of each request

    async def run(self, subject: Subject) -> Result:
        traces = await answered(self.streams, self.requests, lambda number: self._ask(subject, number))
        return Result(stream_figures(traces), sum(trace.tokens for trace in traces))

    async def _ask(self, subject: Subject, number: int) -> Trace:
        words = subject.words(number)
        prompt = user(f"Go on with a long story about {words.draw(self.words)}")
        return await subject.client.chat([prompt], words, self.tokens)
