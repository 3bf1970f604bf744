"""What is measured: one line a scenario."""

from dataclasses import dataclass

from tests.bench.workloads.chat import Chat
from tests.bench.workloads.cold_load import ColdLoad
from tests.bench.workloads.documents import Documents
from tests.bench.workloads.embeddings import Embeddings
from tests.bench.workloads.newcomer import Newcomer
from tests.bench.workloads.streams import Streams
from tests.bench.workloads.subject import Workload


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    workload: Workload
    seconds: float  # that one turn takes on two slow cores; for the estimate before there is anything better
    limit: float = 180  # seconds after which a turn is given up


def streams(count: int, seconds: float) -> Scenario:
    title = f"{count} stream{'s' * (count > 1)}, 128 tokens each"
    return Scenario(f"streams-{count}", title, Streams(count, count, 128, 51), seconds)


def shared(words: int, seconds: float) -> Scenario:
    title = f"16 requests on 8 streams, {words} words in common"
    return Scenario(f"shared-prefix-{words}", title, Streams(8, 16, 32, 20, shared_words=words), seconds)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        streams(1, 2),
        streams(4, 4),
        streams(8, 7),
        streams(16, 14),
        shared(400, 6),
        shared(1500, 12),
        Scenario("chat", "One user, 6 turns", Chat(turns=6, words=24, tokens=64), 5),
        Scenario("newcomer", "A long prompt among 4 streams", Newcomer(4, 400, 40, 3560), 120, limit=600),
        Scenario("json-1", "JSON Schema, 1 stream", Documents(1, 4), 8),
        Scenario("json-4", "JSON Schema, 4 streams", Documents(4, 8), 10),
        Scenario("cold-load", "First token from a model not loaded", ColdLoad(), 3),
        Scenario("embeddings", "Texts into vectors", Embeddings(requests=4, texts=8, words=60), 8),
    )
}
