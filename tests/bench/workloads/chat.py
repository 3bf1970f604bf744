"""One user's chat, turn by turn: each request contains all earlier messages."""

from dataclasses import dataclass

from atelier.json_types import Json
from tests.bench.client import user
from tests.bench.outcomes import Result
from tests.bench.percentiles import median, ratio
from tests.bench.stream_figures import stream_figures
from tests.bench.trace import Trace
from tests.bench.workloads.lone_prompt import ANSWER_TOKENS
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
        whole = await self._whole_history(subject, messages[:-1])
        return Result(turn_figures(traces, whole), sum(trace.tokens for trace in [*traces, whole]))

    async def _whole_history(self, subject: Subject, messages: list[Json]) -> Trace:
        """The last request with another beginning, so that nothing of it is cached."""
        words = subject.words("whole")
        begin = user(f"Tell me nothing about {words.draw(self.words)}")
        return await subject.client.chat([begin, *messages[1:]], words, ANSWER_TOKENS)


def turn_figures(traces: list[Trace], whole: Trace) -> dict[str, float]:
    """The first turn's words are new; from the second on only the last question's are. `whole`: all new again."""
    firsts = [trace.time_to_first_token for trace in traces]
    by_turn = {f"ttft_turn_{turn}": first for turn, first in enumerate(firsts, 1)}
    itl = {name: value for name, value in stream_figures(traces).items() if name.startswith(("itl", "longest"))}
    return {
        **by_turn,
        "ttft_later_turns": median(firsts[1:]),
        "computed_later_turns": median([float(trace.prompt_tokens - trace.cached_tokens) for trace in traces[1:]]),
        "ttft_whole_history": whole.time_to_first_token,
        "last_turn_over_whole_history": ratio(firsts[-1], whole.time_to_first_token),
        **itl,
    }
