"""The bodies of Anthropic's dialect. Unknown fields are ignored; what is not served is refused by translate.py."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from atelier.settings import TABLE
from atelier.settings.settings_schema import fields_model
from atelier.submission import LONGEST_TIMEOUT, MOST_PRIORITY
from gateway.dialects.body_base import Body
from gateway.dialects.openai.openai_requests import MAX_TOKENS, MOST_MESSAGES, MOST_STOPS, StopString, Ttl

LEAST_BUDGET = 1024  # tokens of thinking, as Anthropic has it
MOST_BLOCKS = 10_000
MOST_TOOLS = 1024

# The settings that Anthropic has no name for may be sent too, under the names that OpenAI's dialect gives them.
SETTINGS = {row.facts.openai: row.name for row in TABLE["inference"].values() if row.facts.openai}
SETTINGS.pop(MAX_TOKENS.openai)

Sampling = fields_model(
    "AnthropicSampling", ((name, TABLE["inference"][setting]) for name, setting in SETTINGS.items())
)


class TextBlock(Body):
    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    """Of an earlier answer. Its signature proves nothing here."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Body):
    type: Literal["redacted_thinking"]


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1, max_length=256)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    input: dict[str, Any]


class Base64Source(Body):
    type: Literal["base64"]
    media_type: str | None = Field(None, description="Ignored: the image itself tells its format.")
    data: str


class UrlSource(Body):
    type: Literal["url"]
    url: str


class OtherSource(Body):
    """Of a type that is refused by name."""

    type: str


def _by_type(*kinds: str) -> Discriminator:
    """Tags by an object's type; the tags are in brackets, which error paths leave out."""

    def tag(value: Any) -> str:
        kind = value.get("type") if isinstance(value, dict) else None
        return f"({kind})" if isinstance(kind, str) and kind in kinds else "(other)"

    return Discriminator(tag)


class ImageBlock(Body):
    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Source, Tag("(base64)")]
        | Annotated[UrlSource, Tag("(url)")]
        | Annotated[OtherSource, Tag("(other)")],
        _by_type("base64", "url"),
    ]


class TextSource(Body):
    type: Literal["text"]
    media_type: str | None = None
    data: str


class SearchResultBlock(Body):
    """What a client has found; it becomes text."""

    type: Literal["search_result"]
    title: str
    source: str
    content: Annotated[list[TextBlock], Field(max_length=MOST_BLOCKS)]


class OtherBlock(BaseModel):
    """Of a type that is not served."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: str


def _of_content(value: Any) -> str:
    if isinstance(value, str):
        return "(text)"
    return "(list)" if isinstance(value, list) else "(neither)"


MATERIAL = ("text", "image", "document", "search_result")  # what a user or a tool can bring

Content = Discriminator(
    _of_content, custom_error_type="content", custom_error_message="must be a string or a list of blocks"
)
PartOfDocument = Annotated[
    Annotated[TextBlock, Tag("(text)")] | Annotated[ImageBlock, Tag("(image)")] | Annotated[OtherBlock, Tag("(other)")],
    _by_type("text", "image"),
]


class ContentSource(Body):
    type: Literal["content"]
    content: Annotated[
        Annotated[str, Tag("(text)")] | Annotated[list[PartOfDocument], Field(max_length=MOST_BLOCKS), Tag("(list)")],
        Content,
    ]


class DocumentBlock(Body):
    """Text, which stands in the prompt below its title and context."""

    type: Literal["document"]
    source: Annotated[
        Annotated[TextSource, Tag("(text)")]
        | Annotated[ContentSource, Tag("(content)")]
        | Annotated[OtherSource, Tag("(other)")],
        _by_type("text", "content"),
    ]
    title: str | None = None
    context: str | None = None


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("(text)")]
    | Annotated[ImageBlock, Tag("(image)")]
    | Annotated[DocumentBlock, Tag("(document)")]
    | Annotated[SearchResultBlock, Tag("(search_result)")]
    | Annotated[OtherBlock, Tag("(other)")],
    _by_type(*MATERIAL),
]
ResultBlocks = Annotated[list[ResultBlock], Field(max_length=MOST_BLOCKS)]


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[Annotated[str, Tag("(text)")] | Annotated[ResultBlocks, Tag("(list)")], Content] | None = None
    is_error: bool | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("(text)")]
    | Annotated[ImageBlock, Tag("(image)")]
    | Annotated[DocumentBlock, Tag("(document)")]
    | Annotated[SearchResultBlock, Tag("(search_result)")]
    | Annotated[ThinkingBlock, Tag("(thinking)")]
    | Annotated[RedactedThinkingBlock, Tag("(redacted_thinking)")]
    | Annotated[ToolUseBlock, Tag("(tool_use)")]
    | Annotated[ToolResultBlock, Tag("(tool_result)")]
    | Annotated[OtherBlock, Tag("(other)")],
    _by_type(*MATERIAL, "thinking", "redacted_thinking", "tool_use", "tool_result"),
]
Blocks = Annotated[list[Block], Field(max_length=MOST_BLOCKS)]


class ConversationMessage(Body):
    role: Literal["user", "assistant", "system"]
    content: Annotated[Annotated[str, Tag("(text)")] | Annotated[Blocks, Tag("(list)")], Content]


class ClientTool(Body):
    """One that the client runs; those of other types have no schema, and are refused."""

    type: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema of an object.")
    strict: bool | None = None


class ToolChoiceEntry(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=LEAST_BUDGET, le=2**31 - 1)] | None = Field(
        None, description="Told to chat templates that know of one; nothing else ends the thinking but max_tokens."
    )
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema", description="JSON Schema of the reply.")


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class PromptBody(Body):
    """What makes a prompt."""

    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    messages: Annotated[list[ConversationMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    system: Annotated[Annotated[str, Tag("(text)")] | Annotated[ResultBlocks, Tag("(list)")], Content] | None = None
    tools: Annotated[list[ClientTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoiceEntry | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="What `output_config.format` was called before.")
    preset: str | None = Field(None, max_length=200, description="Whose settings hold where the request is silent.")
    mcp_servers: list[Any] | None = Field(None, description="Not supported.")
    container: Any = Field(None, description="Not supported.")
    thread: Any = Field(None, description="Not supported: every request brings all of its messages.")


class CountTokensBody(PromptBody):
    pass


class MessagesBody(PromptBody, Sampling):  # type: ignore[misc, valid-type]
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1, description=MAX_TOKENS.description)]
    stop_sequences: Annotated[list[StopString], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    compaction: Any = Field(None, description="Not supported.")
    ttl: Ttl | None = Field(
        None,
        description="If the model is loaded for this: seconds without work after which it is unloaded; -1: never.",
    )
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] | None = Field(
        None, description="Requests with a lower one start sooner; 0 when unset."
    )
    timeout: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT)] | None = Field(
        None, description="Seconds after which the request fails rather than goes on."
    )
