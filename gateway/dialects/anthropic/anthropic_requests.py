"""The request bodies of Anthropic's dialect. Fields without support are rejected in anthropic_calls.py."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from atelier.json_types import Json
from atelier.settings import TABLE
from atelier.settings.settings_schema import fields_model
from gateway.dialects.body import PRESET, Body, PresetName, ServingFields, by_json_type, by_type_field
from gateway.dialects.openai.openai_requests import MAX_TOKENS, MOST_MESSAGES, MOST_STOPS, StopString

MOST_BLOCKS = 10_000
MOST_TOOLS = 1024

# Settings without a name in Anthropic's API are accepted too, under their names in OpenAI's dialect.
SETTINGS = {row.facts.openai: row.name for row in TABLE["inference"].values() if row.facts.openai}
SETTINGS.pop(MAX_TOKENS.openai)

Sampling = fields_model(
    "AnthropicSampling", ((name, TABLE["inference"][setting]) for name, setting in SETTINGS.items())
)


class TextBlock(Body):
    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    """From an earlier reply. Its signature is not checked."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Body):
    type: Literal["redacted_thinking"]


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1, max_length=256)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    input: Json


class Base64Source(Body):
    type: Literal["base64"]
    media_type: str | None = Field(None, description="Ignored: the format is detected from the image.")
    data: str


class UrlSource(Body):
    type: Literal["url"]
    url: str


class OtherSource(Body):
    """A source of an unsupported type, which the error message names."""

    type: str


class ImageBlock(Body):
    type: Literal["image"]
    source: Annotated[
        Annotated[Base64Source, Tag("(base64)")]
        | Annotated[UrlSource, Tag("(url)")]
        | Annotated[OtherSource, Tag("(other)")],
        by_type_field("base64", "url"),
    ]


class TextSource(Body):
    type: Literal["text"]
    media_type: str | None = None
    data: str


class SearchResultBlock(Body):
    """A search result of the client's, which becomes text in the prompt."""

    type: Literal["search_result"]
    title: str
    source: str
    content: Annotated[list[TextBlock], Field(max_length=MOST_BLOCKS)]


class OtherBlock(Body):
    """A block of an unsupported type."""

    type: str


MATERIAL = ("text", "image", "document", "search_result")  # the types of blocks in user turns and tool results

Content = by_json_type({str: "(text)", list: "(list)"}, "content", "must be a string or a list of blocks")
PartOfDocument = Annotated[
    Annotated[TextBlock, Tag("(text)")] | Annotated[ImageBlock, Tag("(image)")] | Annotated[OtherBlock, Tag("(other)")],
    by_type_field("text", "image"),
]


class ContentSource(Body):
    type: Literal["content"]
    content: Annotated[
        Annotated[str, Tag("(text)")] | Annotated[list[PartOfDocument], Field(max_length=MOST_BLOCKS), Tag("(list)")],
        Content,
    ]


class DocumentBlock(Body):
    """Text, which follows its title and context in the prompt."""

    type: Literal["document"]
    source: Annotated[
        Annotated[TextSource, Tag("(text)")]
        | Annotated[ContentSource, Tag("(content)")]
        | Annotated[OtherSource, Tag("(other)")],
        by_type_field("text", "content"),
    ]
    title: str | None = None
    context: str | None = None


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("(text)")]
    | Annotated[ImageBlock, Tag("(image)")]
    | Annotated[DocumentBlock, Tag("(document)")]
    | Annotated[SearchResultBlock, Tag("(search_result)")]
    | Annotated[OtherBlock, Tag("(other)")],
    by_type_field(*MATERIAL),
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
    by_type_field(*MATERIAL, "thinking", "redacted_thinking", "tool_use", "tool_result"),
]
Blocks = Annotated[list[Block], Field(max_length=MOST_BLOCKS)]


class ConversationMessage(Body):
    role: Literal["user", "assistant", "system"]
    content: Annotated[Annotated[str, Tag("(text)")] | Annotated[Blocks, Tag("(list)")], Content]


class ClientTool(Body):
    """A tool that the client runs. Tools of other types have no schema and are rejected."""

    type: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    input_schema: Json | None = Field(None, description="JSON Schema of an object.")
    strict: bool | None = None


class ToolChoiceEntry(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Maximum tokens of the thinking, after which the answer begins. 1024 is not required."
    )
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema", description="JSON Schema of the reply.")


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class PromptBody(Body):
    """The fields that determine the prompt."""

    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    messages: Annotated[list[ConversationMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    system: Annotated[Annotated[str, Tag("(text)")] | Annotated[ResultBlocks, Tag("(list)")], Content] | None = None
    tools: Annotated[list[ClientTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoiceEntry | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(None, description="The earlier name of `output_config.format`.")
    preset: PresetName | None = Field(None, description=PRESET)
    mcp_servers: list[object] | None = Field(None, description="Not supported.")
    container: object = Field(None, description="Not supported.")
    thread: object = Field(None, description="Not supported: send all messages in every request.")


class CountTokensBody(PromptBody):
    pass


class MessagesBody(PromptBody, Sampling, ServingFields):  # type: ignore[misc, valid-type]
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1, description=MAX_TOKENS.description)]
    stop_sequences: Annotated[list[StopString], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    metadata: Json | None = None
    compaction: object = Field(None, description="Not supported.")
