"""Texts into vectors, from a server that was started for it where that is needed."""

import time
from dataclasses import dataclass

from tests.bench.outcomes import NotOffered, Result
from tests.bench.workloads.subject import Subject

PATH = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`requests`, one after another, of `texts` each."""

    requests: int
    texts: int
    words: int  # of each text

    async def run(self, subject: Subject) -> Result:
        with subject.contender.embedding(subject.running) as running:
            client = running.client()
            await client.post(PATH, {"input": ["warm up"]})
            started = time.monotonic()
            for number in range(self.requests):
                words = subject.words(number)
                inputs = [words.draw(self.words) for _ in range(self.texts)]
                reply = await client.post(PATH, {"input": inputs})
                if len(reply["data"]) != self.texts:
                    raise NotOffered(f"{len(reply['data'])} vectors for {self.texts} texts")
            seconds = time.monotonic() - started
        return Result({"texts_per_second": self.requests * self.texts / seconds})
