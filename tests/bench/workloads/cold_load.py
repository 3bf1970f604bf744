"""The first token from a model that is not loaded, with its file in the page cache."""

from dataclasses import dataclass

from tests.bench.client import Client, user
from tests.bench.outcomes import Result
from tests.bench.trace import Trace
from tests.bench.workloads.subject import Subject


@dataclass(frozen=True, slots=True)
class ColdLoad:
    words: int = 10

    async def run(self, subject: Subject) -> Result:
        words = subject.words("cold")
        prompt = user(words.draw(self.words))

        async def ask(client: Client) -> Trace:
            return await client.chat([prompt], words, 1)

        return Result({"cold_ttft": await subject.contender.load_cold(subject.running, ask)})
