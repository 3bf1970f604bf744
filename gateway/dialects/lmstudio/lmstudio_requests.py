"""The bodies of LM Studio's dialects."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from atelier.settings import TABLE
from atelier.settings.settings_schema import annotation, fields_model
from gateway.dialects.body_base import Body
from gateway.dialects.openai.mcp_tool import ServerHeaders, ServerUrl, ToolNames
from gateway.dialects.openai.openai_requests import ELICITATION, ChatBody, CompletionBody, Ttl

LOAD_FIELDS = {row.facts.lmstudio: row.name for row in TABLE["load"].values() if row.facts.lmstudio}

LoadSettings = fields_model(
    "LoadSettings", ((row.facts.lmstudio, row) for row in TABLE["load"].values() if row.facts.lmstudio)
)

UNLIMITED = -1
MOST_INPUT_ITEMS = 1000
MOST_INTEGRATIONS = 64


MaxTokens = Annotated[int, Field(ge=UNLIMITED, le=2**31 - 1, description="-1: no limit.")]


class V0ChatBody(ChatBody):
    max_tokens: MaxTokens | None = None


class V0CompletionBody(CompletionBody):
    max_tokens: MaxTokens | None = None


class LoadBody(LoadSettings):  # type: ignore[misc, valid-type]
    model: str = Field(description="Key of a model, or its short form.")
    identifier: str | None = Field(None, description="What to call the instance; otherwise its model's key.")
    preset: str | None = Field(None, max_length=200, description="Whose settings hold where this body is silent.")
    ttl: Ttl | None = Field(None, description="Seconds without work after which it is unloaded; otherwise it stays.")
    echo_load_config: bool | None = Field(None, description="Answer with the settings as resolved.")
    estimate_only: bool | None = Field(None, description="Load nothing: answer with the memory that it would take.")
    num_experts: Any = Field(None, description="Not supported yet.")


class UnloadBody(Body):
    instance_id: str


ChatSettings = fields_model(
    "ChatSettings", ((row.facts.lmstudio, row) for row in TABLE["inference"].values() if row.facts.lmstudio)
)


class InputItem(Body):
    type: Literal["message", "text", "image"]
    content: str | None = None
    data_url: str | None = Field(None, description="Of an image, in base64.")


Label = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class PluginIntegration(Body):
    """A server that the operator has set up."""

    type: Literal["plugin"]
    id: Annotated[str, Field(min_length=1, max_length=128)] = Field(description='"mcp/<label>".')
    allowed_tools: ToolNames | None = None


class EphemeralMCP(Body):
    """A server for this request alone."""

    type: Literal["ephemeral_mcp"]
    server_label: Label
    server_url: ServerUrl
    allowed_tools: ToolNames | None = None
    headers: ServerHeaders | None = None


def _integration_kind(value: Any) -> str:
    if isinstance(value, str):
        return "(text)"
    kind = value.get("type") if isinstance(value, dict) else None
    return f"({kind})" if kind in ("plugin", "ephemeral_mcp") else "(neither)"


Integration = Annotated[
    Annotated[str, Field(min_length=1, max_length=128), Tag("(text)")]
    | Annotated[PluginIntegration, Tag("(plugin)")]
    | Annotated[EphemeralMCP, Tag("(ephemeral_mcp)")],
    Discriminator(
        _integration_kind,
        custom_error_type="integration",
        custom_error_message='must be "mcp/<label>", or an object of type plugin or ephemeral_mcp',
    ),
]

Input = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_INPUT_ITEMS), Tag("(list)")],
    Discriminator(
        lambda value: {str: "(text)", list: "(list)"}.get(type(value), "(neither)"),
        custom_error_type="input",
        custom_error_message="must be a string or a list of items",
    ),
]


class V1ChatBody(ChatSettings):  # type: ignore[misc, valid-type]
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    input: Input = Field(description="What the user says.")
    system_prompt: str | None = Field(None, description="In a chat that goes on, it replaces the earlier one.")
    stream: bool | None = None
    reasoning: Literal["off", "low", "medium", "high", "on"] | None = Field(
        None, description="Whether and how much the model shall think, where its chat template can say so."
    )
    context_length: annotation(TABLE["load"]["context_length"]) | None = Field(  # type: ignore[valid-type]
        None, description="If the model is loaded for this: its context. One that is loaded keeps its own."
    )
    store: bool | None = Field(None, description="false: the response is not kept, and cannot be continued.")
    previous_response_id: str | None = Field(None, description="The response after which this goes on.")
    integrations: Annotated[list[Integration], Field(max_length=MOST_INTEGRATIONS)] | None = Field(
        None, description="MCP servers whose tools the model may call."
    )
    tool_choice: Literal["none", "auto", "required"] | None = Field(
        None, description="Whether their tools may be called, or one must be at first. Ours, not LM Studio's."
    )
    elicitation: bool | None = Field(None, description=f"{ELICITATION} Ours, not LM Studio's.")
    preset: str | None = Field(None, max_length=200, description="Whose settings hold where the request is silent.")
    ttl: Ttl | None = Field(
        None,
        description="If the model is loaded for this: seconds without work after which it is unloaded; -1: never.",
    )
    draft_model: str | None = Field(
        None, description="Must be the one that the model is loaded with: the load setting draft_model."
    )
