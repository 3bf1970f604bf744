"""One long prompt while the server has nothing else to do."""

from dataclasses import dataclass

from tests.bench.client import user
from tests.bench.outcomes import Result
from tests.bench.trace import Trace
from tests.bench.workloads.subject import Subject

ANSWER_TOKENS = 4  # the first may have no text


@dataclass(frozen=True, slots=True)
class LonePrompt:
    words: int

    async def run(self, subject: Subject) -> Result:
        trace = await ask_long(subject, self.words, "alone")
        return Result(prompt_figures(trace), trace.tokens)


async def ask_long(subject: Subject, words: int, part: str) -> Trace:
    """`part`: of the scenario; each has other words."""
    drawn = subject.words(part)
    return await subject.client.chat([user(f"Sum this up: {drawn.draw(words)}")], drawn, ANSWER_TOKENS)


def prompt_figures(trace: Trace) -> dict[str, float]:
    figures = {"ttft": trace.time_to_first_token, "prompt_tokens": float(trace.prompt_tokens)}
    if trace.prompt_tokens:
        figures["prompt_tokens_per_second"] = trace.prompt_tokens / trace.time_to_first_token
    return figures
