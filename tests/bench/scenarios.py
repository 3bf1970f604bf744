"""What is measured: one line a scenario. Slow models have the same scenarios with fewer tokens."""

from dataclasses import dataclass

from tests.bench.workloads.chat import Chat
from tests.bench.workloads.cold_load import ColdLoad
from tests.bench.workloads.documents import Documents
from tests.bench.workloads.embeddings import Embeddings
from tests.bench.workloads.lone_prompt import LonePrompt
from tests.bench.workloads.newcomer import Newcomer
from tests.bench.workloads.shared_prefix import SharedPrefix
from tests.bench.workloads.streams import Streams
from tests.bench.workloads.subject import Workload

# On two slow cores, with the starter model; for the estimate of the duration before anything is measured.
PROMPT_TOKEN_SECONDS = 0.006
TOKEN_SECONDS = 0.011
LEAST_LIMIT = 180.0  # seconds
PATIENCE = 10.0  # times the estimate
STARTER_BYTES = 98_362_432
LARGE_BYTES = 3 * STARTER_BYTES


@dataclass(frozen=True, slots=True)
class Scale:
    """The number of tokens of a turn, and how much slower than the starter the model is."""

    tokens: int  # of each stream
    shared_tokens: int  # of each stream with a shared prefix
    chat_tokens: int  # of each of the chat's answers
    documents: tuple[int, int]  # under a schema, from one stream and from four
    slowness: float = 1.0

    def seconds(self, prompt_tokens: int, tokens: int) -> float:
        return self.slowness * (prompt_tokens * PROMPT_TOKEN_SECONDS + tokens * TOKEN_SECONDS)


def scale_of(file_bytes: int) -> Scale:
    """A file of twice the size takes about one and a half times as long: small matrices use a processor badly."""
    if file_bytes < LARGE_BYTES:
        return Scale(128, 32, 64, (4, 8))
    return Scale(64, 16, 24, (2, 4), (file_bytes / STARTER_BYTES) ** 0.6)


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    workload: Workload
    seconds: float  # estimate for one turn
    loads_again: bool = False  # a peer loads the model once more, beside the server that runs

    @property
    def limit(self) -> float:
        """Seconds after which a turn is given up."""
        return max(LEAST_LIMIT, PATIENCE * self.seconds)


def scenarios_at(scale: Scale) -> dict[str, Scenario]:
    """By name, in the order in which they are measured."""
    listed = (
        *(_streams(scale, count) for count in (1, 4, 8, 16)),
        _prompt(scale, 650),
        _prompt(scale, 3600),
        _shared(scale, 400),
        _shared(scale, 1500),
        _chat(scale),
        _newcomer(scale),
        _documents(scale, 1),
        _documents(scale, 4),
        Scenario("cold-load", "First token from a model not loaded", ColdLoad(), 3 * scale.slowness, loads_again=True),
        _embeddings(scale),
    )
    return {scenario.name: scenario for scenario in listed}


def _streams(scale: Scale, count: int) -> Scenario:
    title = f"{count} stream{'s' * (count > 1)}, {scale.tokens} tokens each"
    seconds = scale.seconds(87 * count, scale.tokens * count)
    return Scenario(f"streams-{count}", title, Streams(count, count, scale.tokens, 51), seconds)


def _prompt(scale: Scale, tokens: int) -> Scenario:
    """Of about so many tokens: nearly every word is one, and the template adds some."""
    title = f"One prompt of {tokens:,} tokens alone"
    return Scenario(f"prompt-{tokens}", title, LonePrompt(tokens - 40), scale.seconds(tokens, 4))


def _shared(scale: Scale, words: int) -> Scenario:
    title = f"16 requests on 8 streams, {words:,} words in common: new to the server (cold), then known (warm)"
    workload = SharedPrefix(8, 16, scale.shared_tokens, 20, words)
    # The estimate is that of a server that computes the prefix once in each of eight sequences.
    seconds = scale.seconds(8 * words + 2 * 16 * 40, 2 * 16 * scale.shared_tokens)
    return Scenario(f"shared-prefix-{words}", title, workload, seconds)


def _chat(scale: Scale) -> Scenario:
    title = f"One user, 6 turns of {scale.chat_tokens} tokens, and the whole history once more as a new prompt"
    workload = Chat(turns=6, words=24, tokens=scale.chat_tokens)
    return Scenario("chat", title, workload, scale.seconds(12 * (40 + scale.chat_tokens), 6 * scale.chat_tokens))


def _newcomer(scale: Scale) -> Scenario:
    title = "A prompt of 3,600 tokens alone, and among 4 streams"
    return Scenario("newcomer", title, Newcomer(4, 3000, 40, 3560), 2.5 * scale.seconds(3600, 0))


def _documents(scale: Scale, streams: int) -> Scenario:
    count = scale.documents[streams > 1]
    title = f"JSON Schema, {streams} stream{'s' * (streams > 1)}, {count} documents"
    return Scenario(f"json-{streams}", title, Documents(streams, count), scale.seconds(60 * count, 170 * count))


def _embeddings(scale: Scale) -> Scenario:
    workload = Embeddings(requests=4, texts=8, words=60)
    return Scenario("embeddings", "Texts into vectors", workload, scale.seconds(4 * 8 * 62, 0), loads_again=True)
