"""Several streams at once, each with its own prompt, or with a prefix that all of them share."""

from dataclasses import dataclass

from atelier.json_types import Json
from tests.bench.client import system, user
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
    words: int  # of each request's own
    shared_words: int = 0  # that all requests of the round begin with

    async def run(self, subject: Subject) -> Result:
        traces = await answered(self.streams, self.requests, lambda number: self._ask(subject, number))
        return Result(stream_figures(traces), sum(trace.tokens for trace in traces))

    async def _ask(self, subject: Subject, number: int) -> Trace:
        words = subject.words(number)
        own = user(f"Go on with a long story about {words.draw(self.words)}")
        return await subject.client.chat([*self._shared(subject), own], words, self.tokens)

    def _shared(self, subject: Subject) -> list[Json]:
        if not self.shared_words:
            return []
        return [system(f"You know these words: {subject.words('shared').draw(self.shared_words)}")]
