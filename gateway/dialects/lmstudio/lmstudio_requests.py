"""The request bodies of LM Studio's dialects, v0 and v1."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from atelier.settings import TABLE
from atelier.settings.settings_schema import annotation, fields_model
from gateway.dialects.body import PRESET, TTL_IF_LOADED, Body, PresetName, Ttl, by_json_type
from gateway.dialects.openai.mcp_tool import ServerHeaders, ServerUrl, ToolNames
from gateway.dialects.openai.openai_requests import ELICITATION, ChatBody, CompletionBody

LOAD_FIELDS = {row.facts.lmstudio: row.name for row in TABLE["load"].values() if row.facts.lmstudio}

LoadSettings = fields_model(
    "LoadSettings", ((row.facts.lmstudio, row) for row in TABLE["load"].values() if row.facts.lmstudio)
)

UNLIMITED = -1
MOST_INPUT_ITEMS = 1000
MOST_INTEGRATIONS = 64
MCP_PREFIX = "mcp/"  # of the ids of the servers in mcp.json


MaxTokens = Annotated[int, Field(ge=UNLIMITED, le=2**31 - 1, description="-1: no limit.")]


class V0ChatBody(ChatBody):
    max_tokens: MaxTokens | None = None


class V0CompletionBody(CompletionBody):
    max_tokens: MaxTokens | None = None


class LoadBody(LoadSettings):  # type: ignore[misc, valid-type]
    model: str = Field(description="Key of a model, or its short form.")
    identifier: str | None = Field(None, description="Instance id. Default: the model's key.")
    preset: PresetName | None = Field(None, description=PRESET)
    ttl: Ttl | None = Field(None, description="Idle seconds until it is unloaded. Default: never.")
    echo_load_config: bool | None = Field(None, description="Include the resolved settings in the reply.")
    estimate_only: bool | None = Field(None, description="Return the memory estimate without loading the model.")


class UnloadBody(Body):
    instance_id: str


ChatSettings = fields_model(
    "ChatSettings", ((row.facts.lmstudio, row) for row in TABLE["inference"].values() if row.facts.lmstudio)
)


class InputItem(Body):
    type: Literal["message", "text", "image"]
    role: Literal["user", "assistant"] | None = Field(
        None,
        description="assistant, for the last item: the beginning of the answer, which the reply continues. "
        "Not part of LM Studio's API.",
    )
    content: str | None = None
    data_url: str | None = Field(None, description="An image as a data URL in base64.")


ServerLabel = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class PluginIntegration(Body):
    """An MCP server that the operator has configured."""

    type: Literal["plugin"]
    id: Annotated[str, Field(min_length=1, max_length=128)] = Field(description='"mcp/<label>".')
    allowed_tools: ToolNames | None = None


class EphemeralMCP(Body):
    """An MCP server for this request only."""

    type: Literal["ephemeral_mcp"]
    server_label: ServerLabel
    server_url: ServerUrl
    allowed_tools: ToolNames | None = None
    headers: ServerHeaders | None = None


def _integration_kind(value: object) -> str:
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

ChatInput = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_INPUT_ITEMS), Tag("(list)")],
    by_json_type({str: "(text)", list: "(list)"}, "input", "must be a string or a list of items"),
]


class V1ChatBody(ChatSettings):  # type: ignore[misc, valid-type]
    model: str = Field(description="Key of a model, its short form, or the id of an instance.")
    input: ChatInput = Field(
        description="The user's message. With no item but the assistant's, the previous response's answer is continued."
    )
    system_prompt: str | None = Field(None, description="When continuing a chat, it replaces the earlier one.")
    stream: bool | None = None
    reasoning: Literal["off", "low", "medium", "high", "on"] | None = Field(
        None, description="Whether and how much the model reasons, if its chat template supports the choice."
    )
    context_length: annotation(TABLE["load"]["context_length"]) | None = Field(  # type: ignore[valid-type]
        None, description="Context length, if this request loads the model; ignored if it is already loaded."
    )
    store: bool | None = Field(None, description="false: the response is not stored and cannot be continued.")
    previous_response_id: str | None = Field(None, description="The response to continue.")
    integrations: Annotated[list[Integration], Field(max_length=MOST_INTEGRATIONS)] | None = Field(
        None, description="MCP servers whose tools the model may call."
    )
    tool_choice: Literal["none", "auto", "required"] | None = Field(
        None, description="Whether their tools may be called, or one must be called first. Not part of LM Studio's API."
    )
    elicitation: bool | None = Field(None, description=f"{ELICITATION} Not part of LM Studio's API.")
    preset: PresetName | None = Field(None, description=PRESET)
    ttl: Ttl | None = Field(None, description=TTL_IF_LOADED)
    draft_model: str | None = Field(None, description="Must equal the load setting draft_model of the instance.")
