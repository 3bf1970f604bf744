"""The request bodies of Ollama's dialect. Options that only apply when loading a model are ignored."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from atelier.json_types import Json
from atelier.settings import TABLE
from atelier.settings.groups import MAX_SEED
from atelier.settings.settings_schema import fields_model
from atelier.submission import MOST_LOGPROBS
from gateway.core.images import MOST_IMAGES
from gateway.dialects.body import Body, by_json_type
from gateway.dialects.openai.embeddings_and_tokens import InputText
from gateway.dialects.openai.openai_requests import MOST_INPUTS, MOST_MESSAGES, Stop

# Settings with the same name in Ollama's API, and the reasoning's budget, for which it has no name.
SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta"),
    "reasoning_budget",
)
LONGEST_DURATION = 100  # characters
MOST_TOKENS = 2**31 - 1
MOST_LAST_N = int(TABLE["inference"]["repeat_last_n"].facts.maximum or 0)

Sampling = fields_model("OllamaSampling", ((name, TABLE["inference"][name]) for name in SAMPLING))


KeepAlive = Annotated[
    Annotated[float, Field(allow_inf_nan=False), Tag("(number)")]
    | Annotated[str, Field(max_length=LONGEST_DURATION), Tag("(text)")],
    by_json_type(
        {str: "(text)", int: "(number)", float: "(number)"}, "keep_alive", 'must be seconds, or a duration such as "5m"'
    ),
]

Format = Annotated[
    Annotated[Literal["", "json"], Tag("(text)")] | Annotated[Json, Tag("(schema)")],
    by_json_type({str: "(text)", dict: "(schema)"}, "format", 'must be "json" or a JSON Schema'),
]

Think = Annotated[
    Annotated[bool, Tag("(flag)")]
    | Annotated[Literal["low", "medium", "high"], Tag("(text)")]
    | Annotated[int, Field(ge=0, le=MOST_TOKENS), Tag("(number)")],
    by_json_type(
        {bool: "(flag)", str: "(text)", int: "(number)"},
        "think",
        'must be true, false, "low", "medium", "high", or the most tokens to think',
    ),
]

Inputs = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[InputText], Field(max_length=MOST_INPUTS), Tag("(list)")],
    by_json_type({str: "(text)", list: "(list)"}, "input", "must be a string or a list of strings"),
]


class OllamaOptions(Sampling):  # type: ignore[misc, valid-type]
    repeat_last_n: Annotated[int, Field(ge=-1, le=MOST_LAST_N, description="-1: the whole context.")] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=MAX_SEED, description="Negative: random.")] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS, description="0 or less: no limit.")] | None = None
    num_ctx: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        None, description="Rejected if the model is loaded with a shorter context; it is not reloaded."
    )
    stop: Stop | None = None


Images = Annotated[list[str], Field(max_length=MOST_IMAGES, description="In base64.")]


class Generating(Body):
    """The fields that chats and text completions have in common."""

    model: Annotated[str, Field(min_length=1, description="A name from /api/tags; NAME:latest means NAME.")]
    stream: bool | None = Field(None, description="True unless it is false.")
    options: OllamaOptions | None = None
    format: Format | None = None
    keep_alive: KeepAlive | None = Field(None, description="If this request loads the model: idle time until unload.")
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class OllamaFunction(Body):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: Json | None = Field(None, description="JSON Schema of the arguments.")


class OllamaTool(Body):
    type: Literal["function"] | None = None
    function: OllamaFunction


class OllamaCalledFunction(Body):
    name: str
    arguments: Json


class OllamaToolCall(Body):
    id: str | None = None
    function: OllamaCalledFunction


class OllamaMessage(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Images | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaChatBody(Generating):
    messages: Annotated[list[OllamaMessage], Field(max_length=MOST_MESSAGES)] | None = Field(
        None, description="None: the model is loaded, or unloaded with keep_alive 0."
    )
    tools: list[OllamaTool] | None = None


class OllamaGenerateBody(Generating):
    prompt: str | None = Field(None, description="None: the model is loaded, or unloaded with keep_alive 0.")
    suffix: str | None = Field(None, description="Text after the completion, for models trained on fill-in-the-middle.")
    system: str | None = None
    raw: bool | None = Field(None, description="Continue the prompt without a chat template.")
    template: str | None = Field(None, description="Rejected: set a template in a preset.")
    images: Images | None = None
    context: list[int] | None = Field(None, description="Ignored: send the messages instead.")


class OllamaEmbedBody(Body):
    model: Annotated[str, Field(min_length=1)]
    input: Inputs | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    truncate: bool | None = Field(None, description="Ignored: an input that is too long is rejected.")
    keep_alive: KeepAlive | None = None


class OllamaEmbeddingsBody(Body):
    model: Annotated[str, Field(min_length=1)]
    prompt: str | None = None
    keep_alive: KeepAlive | None = None


class OllamaModelBody(Body):
    """`name` is the field's name in older clients."""

    model: str | None = None
    name: str | None = None


class OllamaPullBody(OllamaModelBody):
    stream: bool | None = Field(None, description="True unless it is false.")
    insecure: bool | None = Field(None, description="Ignored: downloads are verified against the hub's digests.")
