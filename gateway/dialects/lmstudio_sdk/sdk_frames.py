"""Frames and parameters of LM Studio's SDK. Unknown fields are ignored; wrong types are rejected."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from atelier.json_types import Json
from gateway.dialects.body import Body
from gateway.dialects.openai.openai_requests import MOST_MESSAGES

MOST_LAYERS = 32  # per configuration stack
MOST_FIELDS = 256  # per layer
MOST_PARTS = 4096  # per message
LONGEST_NAME = 1024  # characters; LM Studio's own limit for names
MOST_FOUND = 25  # repositories; LM Studio's own limit
LONGEST_QUERY = 200  # characters
LONGEST_TTL_MS = 10 * 365 * 86_400_000

Number = Annotated[int, Field(ge=0, le=2**53)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
TtlMs = Annotated[int, Field(ge=1, le=LONGEST_TTL_MS)]


class AuthFrame(Body):
    """The first frame of a connection."""

    auth_version: Literal[1] = Field(alias="authVersion")
    client_identifier: Annotated[str, Field(max_length=LONGEST_NAME)] = Field(alias="clientIdentifier")
    client_passkey: Annotated[str, Field(max_length=LONGEST_NAME)] = Field(alias="clientPasskey")


class RpcCall(Body):
    endpoint: str
    call_id: Number = Field(alias="callId")
    parameter: object = None


class ChannelCreate(Body):
    endpoint: str
    channel_id: Number = Field(alias="channelId")
    creation_parameter: object = Field(None, alias="creationParameter")


class ChannelMessage(Body):
    type: str


class ChannelSend(Body):
    channel_id: Number = Field(alias="channelId")
    message: ChannelMessage


def _part_type(value: object) -> str:
    return f"({value.get('type')})" if isinstance(value, dict) else "(neither)"


class ModelQuery(Body):
    identifier: Name | None = None
    path: Name | None = None
    domain: str | None = None
    vision: bool | None = None


class ModelSpecifier(Body):
    """A query, or a reference to one instance."""

    type: Literal["query", "instanceReference"]
    query: ModelQuery | None = None
    instance_reference: Name | None = Field(None, alias="instanceReference")


class ConfigField(Body):
    key: Annotated[str, Field(max_length=LONGEST_NAME)]
    value: object = None


class ConfigFields(Body):
    fields: Annotated[list[ConfigField], Field(max_length=MOST_FIELDS)]


class ConfigLayer(Body):
    layer_name: str = Field(alias="layerName")
    config: ConfigFields


class ConfigStack(Body):
    layers: Annotated[list[ConfigLayer], Field(max_length=MOST_LAYERS)]


class HistoryText(Body):
    text: str


class HistoryFile(Body):
    identifier: str


class ToolCallRequest(Body):
    id: str | None = None
    name: str
    arguments: Json | None = None


class HistoryToolCall(Body):
    tool_call_request: ToolCallRequest = Field(alias="toolCallRequest")


class HistoryToolResult(Body):
    content: str
    tool_call_id: str | None = Field(None, alias="toolCallId")


HistoryPart = Annotated[
    Annotated[HistoryText, Tag("(text)")]
    | Annotated[HistoryFile, Tag("(file)")]
    | Annotated[HistoryToolCall, Tag("(toolCallRequest)")]
    | Annotated[HistoryToolResult, Tag("(toolCallResult)")],
    Discriminator(
        _part_type,
        custom_error_type="part",
        custom_error_message="must be of the type text, file, toolCallRequest or toolCallResult",
    ),
]


class HistoryMessage(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[list[HistoryPart], Field(max_length=MOST_PARTS)]


class History(Body):
    messages: Annotated[list[HistoryMessage], Field(min_length=1, max_length=MOST_MESSAGES)]


class ToolFunction(Body):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    parameters: Json | None = None


class OfferedTool(Body):
    type: Literal["function"]
    function: ToolFunction


class ToolUse(Body):
    """The value of llm.prediction.tools."""

    type: Literal["none", "toolArray"]
    tools: Annotated[list[OfferedTool], Field(max_length=128)] | None = None
    force: bool | None = None


class Structured(Body):
    """The value of llm.prediction.structured."""

    type: Literal["none", "json", "gbnf"]
    json_schema: Json | None = Field(None, alias="jsonSchema")
    gbnf_grammar: str | None = Field(None, alias="gbnfGrammar")


class ReasoningParsing(Body):
    """The value of llm.prediction.reasoning.parsing."""

    enabled: bool
    start_string: str = Field(alias="startString")
    end_string: str = Field(alias="endString")


class PredictParameter(Body):
    model_specifier: ModelSpecifier = Field(alias="modelSpecifier")
    history: History
    prediction_config_stack: ConfigStack = Field(alias="predictionConfigStack")
    fuzzy_preset_identifier: Annotated[str, Field(max_length=200)] | None = Field(None, alias="fuzzyPresetIdentifier")


class GetOrLoadParameter(Body):
    identifier: Name
    load_config_stack: ConfigStack = Field(alias="loadConfigStack")
    load_ttl_ms: TtlMs | None = Field(None, alias="loadTtlMs")


class LoadModelParameter(Body):
    model_key: Name = Field(alias="modelKey")
    identifier: str | None = None
    load_config_stack: ConfigStack = Field(alias="loadConfigStack")
    ttl_ms: TtlMs | None = Field(None, alias="ttlMs")


class UnloadParameter(Body):
    identifier: Name


class SpecifierParameter(Body):
    specifier: ModelSpecifier


class ModelInfoParameter(SpecifierParameter):
    throw_if_not_found: bool = Field(False, alias="throwIfNotFound")


class UploadParameter(Body):
    """The other fields, such as the file's name, are ignored."""

    content_base64: str = Field(alias="contentBase64")


class SearchOptions(Body):
    search_term: Annotated[str, Field(max_length=LONGEST_QUERY)] | None = Field(None, alias="searchTerm")
    limit: Annotated[int, Field(ge=1, le=MOST_FOUND)] | None = None
    compatibility_types: Annotated[list[str], Field(max_length=32)] | None = Field(None, alias="compatibilityTypes")


class SearchParameter(Body):
    opts: SearchOptions


class SearchResultIdentifier(Body):
    """A repository on the hub, or an entry in LM Studio's own catalogue."""

    type: Literal["hf", "catalog"]
    identifier: Name


class DownloadOptionsParameter(Body):
    model_search_result_identifier: SearchResultIdentifier = Field(alias="modelSearchResultIdentifier")


class DownloadParameter(Body):
    download_identifier: Name = Field(alias="downloadIdentifier")


class TextParameter(SpecifierParameter):
    input_string: str = Field(alias="inputString")


class EmbedParameter(Body):
    model_specifier: ModelSpecifier = Field(alias="modelSpecifier")
    input_string: Annotated[str, Field(min_length=1)] = Field(alias="inputString")


class TemplateOptions(Body):
    omit_bos_token: bool | None = Field(None, alias="omitBosToken")
    omit_eos_token: bool | None = Field(None, alias="omitEosToken")
    tool_definitions: Annotated[list[OfferedTool], Field(max_length=128)] | None = Field(None, alias="toolDefinitions")


class TemplateParameter(SpecifierParameter):
    history: History
    opts: TemplateOptions = TemplateOptions()
