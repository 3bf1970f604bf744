"""The bodies of chat and text completions. The bounds of settings come from the table of settings."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Discriminator, Field, Tag

from atelier.json_types import Json
from atelier.lora_adapters import LARGEST_SCALE, MOST_ADAPTERS
from atelier.settings import TABLE
from atelier.settings.settings_schema import MAX_TOKEN_ID, fields_model
from atelier.submission import MOST_CHOICES, MOST_LOGPROBS
from gateway.dialects.body import Body, ServingFields, by_content, by_json_type
from gateway.dialects.openai.mcp_tool import MCPTool, NamedMCPTool, is_mcp
from gateway.dialects.requested_reasoning import OTHER_NAMES, Budget, Effort, RequestedReasoning

MOST_PROMPTS = 128
MOST_INPUTS = 2048  # of embeddings, and documents to rank
MOST_MESSAGES = 10_000
MOST_TOKENS = 2**20  # to be written as text
MOST_TOOLS = 256
LONGEST_FUNCTION_NAME = 128
MOST_STOPS = TABLE["prompt"]["stop"].facts.max_items
MAX_TOKENS = TABLE["inference"]["max_tokens"].facts
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Sampling = fields_model(
    "Sampling", ((row.facts.openai, row) for row in TABLE["inference"].values() if row.facts.openai)
)


class ImageUrl(Body):
    url: str = Field(description="http, https, or a data URL in base64.")
    detail: str | None = Field(None, description="Ignored: the model determines how many tokens an image has.")


ImageEntry = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[ImageUrl, Tag("(object)")],
    by_json_type({str: "(text)", dict: "(object)"}, "image_url", "must be a string or an object with url"),
]


class ContentPart(Body):
    """A part of a message's content."""

    type: str
    text: str | None = None
    image_url: ImageEntry | None = None
    refusal: str | None = None  # in an assistant's earlier turn


Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[ContentPart], Tag("(list)")],
    by_content("content", "must be a string or a list of content parts"),
]


class CalledFunction(Body):
    """`arguments` was written by a model, and may not be valid JSON."""

    name: Annotated[str, Field(min_length=1, max_length=LONGEST_FUNCTION_NAME)]
    arguments: str


class ToolCallEntry(Body):
    """A call that the assistant made."""

    id: str | None = None
    type: Literal["function"]
    function: CalledFunction


class Message(Body):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    reasoning_content: str | None = Field(None, description="The assistant's reasoning before its answer.")
    tool_calls: Annotated[list[ToolCallEntry], Field(max_length=MOST_TOOLS)] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = Field(None, description="The older format of tool_calls.")


Stop = Annotated[
    Annotated[StopString, Tag("(text)")] | Annotated[list[StopString], Field(max_length=MOST_STOPS), Tag("(list)")],
    by_json_type({str: "(text)", list: "(list)"}, "stop", "must be a string or a list of strings"),
]
Prompt = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS), Tag("(list)")]
    | Annotated[list[TokenId], Field(min_length=1), Tag("(numbers)")]
    | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(max_length=MOST_PROMPTS), Tag("(lists)")],
    by_content("prompt", "must be a string, a list of strings, token ids, or a list of lists of token ids"),
]
FunctionName = Annotated[str, Field(min_length=1, max_length=LONGEST_FUNCTION_NAME, pattern=r"^[A-Za-z0-9_.:/-]+$")]


class FunctionEntry(Body):
    """A function that the client can run."""

    name: FunctionName
    description: str | None = None
    parameters: Json | None = Field(None, description="JSON Schema of the arguments, an object.")
    strict: bool | None = Field(None, description="A keyword of the schema that cannot be enforced is an error.")


class FunctionToolEntry(Body):
    type: Literal["function"]
    function: FunctionEntry


ToolEntry = Annotated[
    Annotated[FunctionToolEntry, Tag("(function)")] | Annotated[MCPTool, Tag("(mcp)")],
    Discriminator(lambda value: "(mcp)" if is_mcp(value) else "(function)"),
]


class FunctionReference(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: FunctionReference


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MOST_TOOLS)]


class AllowedToolsChoice(Body):
    """Allows calls of some of the tools only."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_kind(value: object) -> str:
    if isinstance(value, str):
        return "(text)"
    if is_mcp(value):
        return "(mcp)"
    return "(allowed)" if isinstance(value, dict) and value.get("type") == "allowed_tools" else "(named)"


ToolChoiceEntry = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("(text)")]
    | Annotated[NamedTool, Tag("(named)")]
    | Annotated[NamedMCPTool, Tag("(mcp)")]
    | Annotated[AllowedToolsChoice, Tag("(allowed)")],
    Discriminator(_choice_kind),
]
FunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag("(text)")] | Annotated[FunctionReference, Tag("(named)")],
    Discriminator(_choice_kind),
]


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="End the stream with a chunk that has the usage.")


class JsonSchemaFormat(Body):
    name: str | None = None
    schema_: Json | None = Field(None, alias="schema", description="JSON Schema of the reply.")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class AdapterEntry(Body):
    """An adapter by its id or its name."""

    id: Annotated[int, Field(ge=0, le=2**32 - 1, description="As GET /api/v1/instances lists it.")] | None = None
    name: str | None = None
    scale: Annotated[float, Field(ge=-LARGEST_SCALE, le=LARGEST_SCALE, allow_inf_nan=False)]


class Common(Sampling, ServingFields):  # type: ignore[misc, valid-type]
    """The fields that chat and text completions share."""

    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Stop | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = Field(None, description="GBNF, or llguidance's Lark if it begins with %llguidance.")
    regex: str | None = Field(None, description="A regular expression that the whole completion must match.")
    user: str | None = None
    metadata: Json | None = None
    store: bool | None = None
    service_tier: str | None = None
    lora: Annotated[list[AdapterEntry], Field(max_length=MOST_ADAPTERS)] | None = Field(
        None, description="Scales of the instance's LoRA adapters; adapters that are not listed are off."
    )
    return_progress: bool | None = Field(None, description="A stream reports the progress of its prompt.")

    draft_model: str | None = Field(None, description="Must equal the load setting draft_model of the loaded model.")


ELICITATION = "true: MCP servers may ask the user during a call. For streams, whose client passes the reply on."


class ChatBody(Common):
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1, description=MAX_TOKENS.description)] | None = None

    logprobs: bool | None = Field(None, description="Return every token's log-probability.")
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = Field(
        None, description="With logprobs: also return those of this many of the likeliest tokens."
    )

    tools: Annotated[list[ToolEntry], Field(max_length=MOST_TOOLS)] | None = Field(
        None,
        description="Functions that the client runs, and MCP servers whose tools the gateway runs.",
    )
    tool_choice: ToolChoiceEntry | None = None
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call per reply.")
    elicitation: bool | None = Field(None, description=f"{ELICITATION} Ours, with tools of type mcp.")
    functions: Annotated[list[FunctionEntry], Field(max_length=MOST_TOOLS)] | None = Field(
        None, description="The older format of tools; calls are returned as function_call."
    )
    function_call: FunctionChoice | None = Field(None, description="The older format of tool_choice.")
    reasoning_effort: Effort | None = Field(
        None, description="Passed to the chat template, with enable_thinking: false for none, true otherwise."
    )
    thinking_budget: Budget | None = Field(
        None,
        validation_alias=AliasChoices(*OTHER_NAMES),
        description=f"Another name of reasoning_budget; so are {', '.join(OTHER_NAMES[1:])}.",
    )
    reasoning: RequestedReasoning | None = Field(None, description="OpenRouter's form of the same settings.")
    chat_template_kwargs: Json | None = Field(
        None, description="Further arguments of the chat template: text, numbers, true, false, null, or lists of these."
    )
    continue_final_message: bool | None = Field(
        None, description="The reply continues the last message, the assistant's, and does not repeat it."
    )
    add_generation_prompt: bool | None = Field(
        None, description="false: the prompt ends after the last message, and no message of the assistant's is begun."
    )

    # Not supported: a value that requests something is an error.
    audio: object = None
    modalities: list[str] | None = None
    prediction: object = None
    web_search_options: object = None
    moderation: object = None
    chat_template: object = None


class CompletionBody(Common):
    prompt: Prompt
    suffix: str | None = Field(None, description="Text after the completion, for models trained to fill in the middle.")
    echo: bool | None = Field(None, description="Begin the completion's text with the prompt.")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = Field(
        None, description="Return every token's log-probability, and those of this many of the likeliest tokens."
    )
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = Field(
        None, description="Generate this many for each prompt, and return the n whose tokens are the likeliest."
    )
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description=f"{MAX_TOKENS.description} 0, with echo: return the prompt only."
    )
