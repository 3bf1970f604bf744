"""Requests in the core's terms, which the dialects translate theirs to; and who sent them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atelier.json_types import Json
from atelier.lora_adapters import AdapterScale
from atelier.prompt_end import PromptEnd
from atelier.settings.declaration import SettingValue
from atelier.submission import Constraint, Echo, Tools
from gateway.core.images import ImageSource, set_apart


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages for the model's chat template: {role, content, ...} each. `images`: one for each image part."""

    messages: list[Json]
    images: Sequence[ImageSource] = ()

    @classmethod
    def of(cls, messages: Sequence[Json]) -> "Chat":
        """From messages whose image parts hold their sources. Only content that is a list has image parts."""
        if any(isinstance(message["content"], list) for message in messages):
            return cls(*set_apart(messages))
        return cls(list(messages))


def tool_call_entry(id: str | None, name: str, arguments: str) -> Json:
    """One of an assistant message's `tool_calls`. `arguments`: JSON."""
    entry: Json = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return entry if id is None else {"id": id, **entry}


def joined(message: Json, continuation: Json) -> Json:
    """The assistant's message with what continues it: more reasoning, more text, and calls. Both contents are text."""
    whole = {**continuation, "content": message["content"] + continuation["content"]}
    if reasoning := message.get("reasoning_content", "") + continuation.get("reasoning_content", ""):
        whole["reasoning_content"] = reasoning
    return whole


def tool_message(id: str, name: str, content: str | list[Json]) -> Json:
    """The result of the tool call with this id."""
    return {"role": "tool", "tool_call_id": id, "name": name, "content": content}


@dataclass(frozen=True, slots=True)
class Text:
    """Text that the model continues as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids that the model continues."""

    ids: list[int]


@dataclass(frozen=True, slots=True)
class Infill:
    """Text before and after a gap that the model fills."""

    prefix: str
    suffix: str


PromptInput = Chat | Text | Tokens | Infill


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request for completions. `settings`: those that the request sets, by name."""

    model: str  # as the client wrote it
    prompts: list[PromptInput]
    prompt_end: PromptEnd = PromptEnd.NEW_MESSAGE  # of a chat
    tools: Tools | None = None  # that the completion of a chat may call
    template_arguments: Mapping[str, object] = field(default_factory=dict)  # further variables of the chat template
    settings: Mapping[str, SettingValue | None] = field(default_factory=dict)
    constraint: Constraint | None = None
    choices: int = 1  # for each prompt
    logprobs: int | None = None  # of every token, with this many of the most likely tokens
    echo: Echo | None = None  # the prompt is returned as part of each choice's text
    prompt_progress: bool = False  # PromptProgress events are requested
    max_tokens_is_bound: bool = False  # where the context has room for fewer, those are generated
    priority: int | None = None  # lower starts sooner
    timeout: float | None = None  # seconds from the request's head to the end of the answer
    draft_model: str | None = None  # for speculation, as the client wrote it
    lora: Sequence[AdapterScale] = ()  # empty: the instance's own scales
    preset: str | None = None  # its settings apply where the request sets none
    ttl: float | None = None  # idle seconds after which a model loaded for this is unloaded; negative: never
    load: Mapping[str, object] = field(default_factory=dict)  # settings of a model loaded for this

    @property
    def stop_strings(self) -> Sequence[object]:
        """Those that the request itself sets."""
        stop = self.settings.get("stop")
        return stop if isinstance(stop, list) else ()

    @property
    def images(self) -> Sequence[ImageSource]:
        """A call with a chat has no other prompt."""
        prompt = self.prompts[0]
        return prompt.images if isinstance(prompt, Chat) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """Texts or token ids, each of which becomes a vector."""

    model: str  # as the client wrote it
    texts: Sequence[str] = ()
    tokens: Sequence[Sequence[int]] = ()
    dimensions: int | None = None  # of each vector; None: all that the model has


@dataclass(frozen=True, slots=True)
class Embeddings:
    model: str
    vectors: list[Sequence[float]]  # of unit length, in the order of the inputs
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall:
    """Documents to score against a query."""

    model: str
    query: str
    documents: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scores:
    model: str
    values: Sequence[float]  # in the order of the documents; higher is better
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeCall:
    """Text to tokenize."""

    model: str
    text: str
    add_special: bool = True  # the beginning-of-sequence token and the like
    parse_special: bool = True  # special tokens written out in the text become those tokens


@dataclass(frozen=True, slots=True)
class Tokenization:
    model: str
    ids: Sequence[int]
    pieces: Sequence[bytes]  # the bytes of each, which may be part of a code point


@dataclass(frozen=True, slots=True)
class Words:
    """Text that a worker made of tokens or of a chat."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent a request: its id for logs, and whose share of a worker it uses."""

    request_id: str
    fairness_key: str


@dataclass(slots=True)
class Account:
    """What the log line and the metrics of one HTTP request need.

    Owned by the request's task: opened by the outermost middleware, filled in by the core.
    """

    request_id: str
    started: float = field(default_factory=time.monotonic)
    model: str = ""  # the model's key, never the client's text
    prompt_tokens: int = 0  # of all its generations
    completion_tokens: int = 0
    generations: int = 0  # that have ended
    error: str = ""  # code of the error that the client received

    def seconds(self) -> float:
        """Since the request arrived."""
        return time.monotonic() - self.started
