"""The tools' arguments and structured results. Settings come from their table, under its names."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from atelier.settings import TABLE
from atelier.settings.settings_schema import fields_model
from gateway.dialects.body import Ttl
from gateway.dialects.native.download_replies import DownloadObject
from gateway.dialects.native.download_routes import LONGEST_QUERY, MOST_FOUND, USUALLY_FOUND
from gateway.dialects.openai.embeddings_and_tokens import InputText
from gateway.dialects.openai.openai_requests import MOST_INPUTS, MOST_MESSAGES, Content

STRICT = ConfigDict(strict=True, extra="forbid")  # an unknown field is an error that names it

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Key of a model, its short form, or the id of an instance; list_models returns them.",
    ),
]
PresetName = Annotated[
    str,
    Field(min_length=1, max_length=200, description="A preset, for the settings that the call does not set."),
]

RequestSettings = fields_model(
    "RequestSettings", [*TABLE["inference"].items(), ("stop", TABLE["prompt"]["stop"])]
)  # a request cannot change the other prompt settings
LoadingSettings = fields_model("LoadingSettings", TABLE["load"].items())


class Input(BaseModel):
    model_config = STRICT


class InferenceSettings(RequestSettings):  # type: ignore[misc, valid-type]
    """How the text is generated. Defaults: the preset's, the instance's or the model's settings."""

    model_config = STRICT


class LoadSettings(LoadingSettings):  # type: ignore[misc, valid-type]
    """Settings of the instance. Defaults: the preset's or the model's settings."""

    model_config = STRICT


class Turn(Input):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Content = Field(description="Text, or a list of parts, of type text or image_url.")


class GenerateInput(Input):
    """The arguments that chat and complete share."""

    model: ModelName
    settings: InferenceSettings | None = None
    preset: PresetName | None = None
    json_schema: dict[str, object] | None = Field(None, description="A JSON Schema that the answer must follow.")


class ChatInput(GenerateInput):
    """Either messages or a prompt."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MOST_MESSAGES)] | None = Field(
        None, description="The conversation so far, the oldest message first."
    )
    prompt: str | None = Field(None, min_length=1, description="The user's message, instead of messages.")
    continue_final_message: bool = Field(
        False, description="The answer continues the last message, the assistant's, and does not repeat it."
    )


class CompleteInput(GenerateInput):
    prompt: str = Field(min_length=1, description="Text that the model continues, without a chat template.")


class EmbedInput(Input):
    model: ModelName
    texts: Annotated[list[InputText], Field(min_length=1, max_length=MOST_INPUTS)]
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="Length to which vectors are truncated."
    )


class RerankInput(Input):
    model: ModelName
    query: InputText
    documents: Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="Return only the best results.")


class TokenizeInput(Input):
    model: ModelName
    text: str
    add_special: bool = Field(False, description="Add special tokens such as begin-of-sequence, if the model has them.")


class NoInput(Input):
    """No arguments."""


class ModelInput(Input):
    model: ModelName


class LoadInput(Input):
    model: ModelName
    settings: LoadSettings | None = None
    preset: PresetName | None = None
    identifier: str | None = Field(None, description="Instance id (default: the model's key).")
    ttl: Ttl | None = Field(None, description="Idle seconds after which it is unloaded (default: never).")


class UnloadInput(Input):
    instance_id: str = Field(
        min_length=1, max_length=200, description="An id among the loaded_instances that list_models returns."
    )


class SearchInput(Input):
    query: str = Field(max_length=LONGEST_QUERY, description="Words of the repository's name.")
    limit: Annotated[int, Field(ge=1, le=MOST_FOUND)] = USUALLY_FOUND


class DownloadInput(Input):
    model: str = Field(
        min_length=1, max_length=1000, description="user/repo, user/repo@q4_k_m or user/repo:file.gguf on the hub."
    )
    quantization: str | None = Field(None, min_length=1, max_length=50, description="Such as Q4_K_M.")
    revision: str | None = Field(None, min_length=1, max_length=100, description="Commit, tag or branch.")


class SettingsInput(Input):
    model: ModelName
    instance: str | None = Field(None, description="One of the model's instances, if it has several.")
    preset: PresetName | None = None


class Usage(TypedDict):
    """In tokens."""

    prompt_tokens: int
    cached_tokens: Annotated[int, Field(description="Prompt tokens that were reused from the KV cache.")]
    completion_tokens: int


class Generated(TypedDict):
    model: str
    instance: Annotated[str, Field(description="The instance that answered.")]
    text: str
    reasoning: Annotated[str | None, Field(description="The model's reasoning before its answer.")]
    finish_reason: Annotated[
        Literal["stop", "length"], Field(description="length: max_tokens or the context length was reached.")
    ]
    usage: Usage
    unenforced: Annotated[list[str], Field(description="Keywords of the JSON Schema that the answer may violate.")]
    dropped_messages: Annotated[int, Field(description="Messages left out of the chat to make it fit the context.")]


class Vectors(TypedDict):
    model: str
    embeddings: Annotated[list[list[float]], Field(description="Of unit length, in the order of the texts.")]
    prompt_tokens: int


class Ranked(TypedDict):
    index: Annotated[int, Field(description="Of the document, from 0.")]
    relevance_score: float


class Ranking(TypedDict):
    model: str
    results: Annotated[list[Ranked], Field(description="The best first.")]
    prompt_tokens: int


class TokenPiece(TypedDict):
    id: int
    piece: Annotated[str | list[int], Field(description="The token's text; its bytes if they are not valid UTF-8.")]


class TokenPieces(TypedDict):
    model: str
    count: int
    tokens: list[TokenPiece]


class Loaded(TypedDict):
    instance_id: str
    model: str
    load_time_seconds: float
    context_length: int


class Unloaded(TypedDict):
    instance_id: str


class Downloaded(TypedDict):
    status: Literal["downloaded", "already_downloaded"]
    model_key: Annotated[str, Field(description="The model's key from now on.")]
    download: DownloadObject | None
