"""One user's chat, turn by turn: each request contains all earlier messages."""

from dataclasses import dataclass

from atelier.json_types import Json
from tests.bench.client import user
from tests.bench.outcomes import Result
from tests.bench.percentiles import median
from tests.bench.stream_figures import stream_figures
from tests.bench.trace import Trace
from tests.bench.workloads.subject import Subject


@dataclass(frozen=True, slots=True)
class Chat:
    turns: int
    words: int  # of each question
    tokens: int  # of each answer

    async def run(self, subject: Subject) -> Result:
        messages: list[Json] = []
        traces: list[Trace] = []
        for turn in range(self.turns):
            words = subject.words(turn)
            messages.append(user(f"Tell me more about {words.draw(self.words)}"))
            traces.append(await subject.client.chat(messages, words, self.tokens))
            messages.append({"role": "assistant", "content": traces[-1].text})
        return Result(turn_figures(traces), sum(trace.tokens for trace in traces))


def turn_figures(traces: list[Trace]) -> dict[str, float]:
    """The first turn's words are new; from the second on only the last question's are."""
    firsts = [trace.time_to_first_token for trace in traces]
    by_turn = {f"ttft_turn_{turn}": first for turn, first in enumerate(firsts, 1)}
    itl = {name: value for name, value in stream_figures(traces).items() if name.startswith(("itl", "longest"))}
    return {**by_turn, "ttft_later_turns": median(firsts[1:]), **itl}
