"""The bodies of Ollama's dialect. Options that a loaded model cannot change any more are not among its fields."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from atelier.settings import TABLE
from atelier.settings.groups import MAX_SEED
from atelier.settings.settings_schema import fields_model
from atelier.submission import MOST_LOGPROBS
from gateway.core.images import MOST_IMAGES
from gateway.dialects.body_base import Body
from gateway.dialects.openai.openai_requests import MOST_INPUTS, MOST_MESSAGES, InputText, Stop

# Ollama's name of each is the setting's own.
SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta"),
)
LONGEST_DURATION = 100  # characters
MOST_TOKENS = 2**31 - 1
MOST_LAST_N = int(TABLE["inference"]["repeat_last_n"].facts.maximum or 0)

Sampling = fields_model("OllamaSampling", ((name, TABLE["inference"][name]) for name in SAMPLING))


def _number_or_text(value: Any) -> str:
    if isinstance(value, str):
        return "(text)"
    return "(number)" if isinstance(value, int | float) and not isinstance(value, bool) else "(neither)"


KeepAlive = Annotated[
    Annotated[float, Field(allow_inf_nan=False), Tag("(number)")]
    | Annotated[str, Field(max_length=LONGEST_DURATION), Tag("(text)")],
    Discriminator(
        _number_or_text,
        custom_error_type="keep_alive",
        custom_error_message='must be seconds, or a duration such as "5m"',
    ),
]

Format = Annotated[
    Annotated[Literal["", "json"], Tag("(text)")] | Annotated[dict[str, Any], Tag("(schema)")],
    Discriminator(
        lambda value: {str: "(text)", dict: "(schema)"}.get(type(value), "(neither)"),
        custom_error_type="format",
        custom_error_message='must be "json" or a JSON Schema',
    ),
]

Think = Annotated[
    Annotated[bool, Tag("(flag)")] | Annotated[Literal["low", "medium", "high"], Tag("(text)")],
    Discriminator(
        lambda value: {bool: "(flag)", str: "(text)"}.get(type(value), "(neither)"),
        custom_error_type="think",
        custom_error_message='must be true, false, "low", "medium" or "high"',
    ),
]

Inputs = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[InputText], Field(max_length=MOST_INPUTS), Tag("(list)")],
    Discriminator(
        lambda value: {str: "(text)", list: "(list)"}.get(type(value), "(neither)"),
        custom_error_type="input",
        custom_error_message="must be a string or a list of strings",
    ),
]


class OllamaOptions(Sampling):  # type: ignore[misc, valid-type]
    repeat_last_n: Annotated[int, Field(ge=-1, le=MOST_LAST_N, description="-1: the whole context.")] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=MAX_SEED, description="Negative: a new one each time.")] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS, description="0 or less: no limit.")] | None = None
    num_ctx: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        None, description="Refused where the model is loaded with a shorter context; nothing is loaded anew."
    )
    stop: Stop | None = None


Images = Annotated[list[str], Field(max_length=MOST_IMAGES, description="In base64.")]


class Generating(Body):
    """What chats and texts have in common."""

    model: Annotated[str, Field(min_length=1, description="As /api/tags has it; NAME:latest means NAME.")]
    stream: bool | None = Field(None, description="True unless it is false.")
    options: OllamaOptions | None = None
    format: Format | None = None
    keep_alive: KeepAlive | None = Field(None, description="If the model is loaded for this: how long it may be idle.")
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class OllamaFunction(Body):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema of the arguments.")


class OllamaTool(Body):
    type: Literal["function"] | None = None
    function: OllamaFunction


class OllamaCalledFunction(Body):
    name: str
    arguments: dict[str, Any]


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
    suffix: str | None = Field(None, description="Text after the answer, for models trained to fill gaps.")
    system: str | None = None
    raw: bool | None = Field(None, description="Continue the prompt as it is, without a chat template.")
    template: str | None = Field(None, description="Refused: a preset can hold one.")
    images: Images | None = None
    context: list[int] | None = Field(None, description="Ignored: a chat's messages are its memory.")


class OllamaEmbedBody(Body):
    model: Annotated[str, Field(min_length=1)]
    input: Inputs | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    truncate: bool | None = Field(None, description="Ignored: an input that is too long is refused.")
    keep_alive: KeepAlive | None = None


class OllamaEmbeddingsBody(Body):
    model: Annotated[str, Field(min_length=1)]
    prompt: str | None = None
    keep_alive: KeepAlive | None = None


class OllamaModelBody(Body):
    """Older clients say name."""

    model: str | None = None
    name: str | None = None


class OllamaPullBody(OllamaModelBody):
    stream: bool | None = Field(None, description="True unless it is false.")
    insecure: bool | None = Field(None, description="Ignored: downloads are checked against the hub's digests.")
