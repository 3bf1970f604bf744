"""The interface of an engine: requests, events, and what is known of a loaded model. wire.py converts to protobuf."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from atelier.errors import AtelierError, DeadlineExceeded, QueueTimeout
from atelier.generation_types import NOTHING_DROPPED, Dropped, Finished, ToolCallPiece
from atelier.json_types import Json
from atelier.lora_adapters import AdapterScale
from atelier.prompt_end import PromptEnd
from atelier.settings.groups import Inference
from atelier.submission import Constraint, Echo, OutputFormat, Tools


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for the model's chat template, or for `template` in its place."""

    messages: list[Json]
    template: str | None = None
    tools: Tools | None = None
    arguments: Json = field(default_factory=dict)  # further variables of the template
    output: OutputFormat = OutputFormat()  # noqa: RUF009 - it is frozen
    images: Sequence[bytes] = ()  # encoded: one for each image part of the messages, in their order
    end: PromptEnd = PromptEnd.NEW_MESSAGE
    parse_special: bool = False  # control tokens that are written out in the content are recognised


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Text before and after a gap, for models trained to fill it."""

    prefix: str
    suffix: str


Prompt = ChatPrompt | InfillPrompt | str | list[int]
"""A chat, a text with a gap, plain text, or token ids."""


@dataclass(frozen=True, slots=True)
class Source:
    """Identifies a call: a Generate stream, and the caller's number on it."""

    stream: int
    call: int


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The time limits of a call, in seconds since it was submitted; None for no limit."""

    end: float | None = None
    start: float | None = None  # for its first sequence to get a slot

    def missed(self, age: float, *, started: bool) -> DeadlineExceeded | None:
        """The error of a call of this age, if it is past a deadline."""
        if self.end is not None and age >= self.end:
            where = "while it was being answered" if started else "while it waited for its turn"
            return DeadlineExceeded(f"The request's timeout passed {where}.", param="timeout")
        if self.start is not None and age >= self.start and not started:
            return QueueTimeout(f"The model had no place for the request within {self.start:g} s; try again.")
        return None


NO_DEADLINES = Deadlines()


@dataclass(frozen=True, slots=True)
class Request:
    """One call: a prompt and how to complete it, `choices` times."""

    prompt: Prompt
    sampling: Inference
    stop: list[str] = field(default_factory=list)
    constraint: Constraint | None = None
    choices: int = 1
    logprobs: int | None = None  # of every token, with this many of the likeliest tokens
    echo: Echo | None = None  # Echoed is requested
    prompt_progress: bool = False  # PromptProgress is requested
    max_tokens_is_bound: bool = False  # generate fewer where the context has no room for max_tokens
    lora: Sequence[AdapterScale] = ()  # empty: the instance's own scales
    request_id: str = ""
    fairness_key: str = ""
    priority: int = 0  # lower starts sooner
    deadlines: Deadlines = NO_DEADLINES


@dataclass(frozen=True, slots=True)
class Accepted:
    prompt_tokens: int
    unenforced: Sequence[str] = ()  # keywords of the schema that the completion may violate
    dropped: Dropped = NOTHING_DROPPED


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """How much of a prompt is computed, in tokens; `done` includes the cached ones."""

    prompt_tokens: int
    cached_tokens: int
    done_tokens: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """In the model's own distribution: before penalties, constraints and temperature."""

    id: int
    piece: bytes
    logprob: float | None  # None for a prompt's first token, which nothing predicts
    top: Sequence["TokenLogprob"] = ()  # the likeliest tokens, likeliest first


@dataclass(frozen=True, slots=True)
class Echoed:
    """The next part of a choice's prompt."""

    choice: int
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """New parts of a choice, in this order: reasoning, then text, then tool calls."""

    choice: int
    text: str
    tokens: int
    logprobs: Sequence[TokenLogprob] = ()
    reasoning: str = ""
    tool_calls: Sequence[ToolCallPiece] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    error: AtelierError


Event = Accepted | PromptProgress | Echoed | Delta | Finished | Failed
Emitted = tuple[Source, Event]
Publish = Callable[[Sequence[Emitted]], None]
"""Called on the event loop, once per step, with the events of all calls."""


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of an engine once its model is loaded."""

    engine: str
    version: str
    context_length: int  # tokens per sequence
    parallel: int
    gpu_layers: int = 0
    devices: list[str] = field(default_factory=list)
    vocabulary_size: int = 0
    embedding_length: int = 0
    can_generate: bool = True
    can_embed: bool = False
    can_infill: bool = False
    can_rerank: bool = False
    can_see: bool = False  # images
    chat_template: str | None = None
    speculation: str = "off"  # as used: the setting auto is off for some models


@dataclass(frozen=True, slots=True)
class Figures:
    """How busy an engine is."""

    active: int  # sequences in prefill or decode
    queued: int  # waiting sequences
    steps: int  # decode steps so far
    cache_used: int = 0  # bytes of host memory that saved prefixes take
    cache_limit: int = 0  # bytes that they may take


class SequenceState(Enum):
    WAITING = 1  # for a slot
    PREFILL = 2  # its prompt is computed, or another sequence computes its beginning
    DECODE = 3


@dataclass(frozen=True, slots=True)
class SequenceFigures:
    """The progress of one choice of one call, without any of its content."""

    request_id: str
    choice: int
    state: SequenceState
    priority: int
    prompt_tokens: int
    done_tokens: int  # of the prompt, computed or taken from the KV cache
    cached_tokens: int
    predicted_tokens: int
    age_seconds: float


class Engine(Protocol):
    """All methods are called on the event loop and do not block it."""

    async def load(self, on_progress: Callable[[float], None]) -> Description:
        """Load the model. Raises LoadFailed. `on_progress` receives values from 0 to 1."""

    def submit(self, source: Source, request: Request) -> None:
        """Begin a call. Its events are published: Accepted and those that follow, or Failed."""

    def cancel(self, source: Source) -> None:
        """Stop a call within a step; nothing more is published for it."""

    def figures(self) -> Figures: ...

    async def sequences(self) -> list[SequenceFigures]:
        """The running and the waiting sequences, as they are between two steps."""

    async def release_cache(self, size: int) -> int:
        """Free so many bytes of saved prefixes, as far as their limit makes way; returns what was freed."""

    async def tokenize(
        self, prompt: ChatPrompt | str, add_special: bool, parse_special: bool = True
    ) -> list[tuple[int, bytes]]:
        """Token ids with the bytes that each is written as. `parse_special`: recognise special tokens in a text."""

    async def detokenize(self, tokens: list[int]) -> str:
        """The text of the tokens."""

    async def render(self, chat: ChatPrompt) -> str:
        """The chat as its template writes it."""

    async def embed(
        self, inputs: list[str | list[int]], dimensions: int | None = None
    ) -> tuple[list[list[float]], int]:
        """Unit vectors of so many dimensions, one per input, and the number of tokens read."""

    async def rerank(self, query: str, documents: list[str]) -> tuple[list[float], int]:
        """How relevant each document is to the query, higher is better, and the number of tokens read."""

    async def close(self) -> None:
        """Stop and free everything. Calls in progress end with Failed."""
