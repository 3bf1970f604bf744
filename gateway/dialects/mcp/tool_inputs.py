"""The arguments of the tools. Settings come from their table, by its names."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from atelier.settings import TABLE
from atelier.settings.settings_schema import fields_model
from gateway.dialects.body_base import Ttl
from gateway.dialects.native.download_routes import LONGEST_QUERY, MOST_FOUND, USUALLY_FOUND
from gateway.dialects.openai.openai_requests import MOST_INPUTS, MOST_MESSAGES, Content, InputText

STRICT = ConfigDict(strict=True, extra="forbid")  # a name that means nothing is told, not passed over

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="Key of a model, its short form, or an instance's id: list_models.",
    ),
]
PresetName = Annotated[
    str, Field(min_length=1, max_length=200, description="A preset, whose settings hold where the call is silent.")
]

RequestSettings = fields_model(
    "RequestSettings", [*TABLE["inference"].items(), ("stop", TABLE["prompt"]["stop"])]
)  # the rest of the prompt's settings are not a request's to set
LoadingSettings = fields_model("LoadingSettings", TABLE["load"].items())


class Input(BaseModel):
    model_config = STRICT


class InferenceSettings(RequestSettings):  # type: ignore[misc, valid-type]
    """How the text is generated. What is left out is the preset's, the instance's or the model's."""

    model_config = STRICT


class LoadSettings(LoadingSettings):  # type: ignore[misc, valid-type]
    """Settings of the instance. What is left out is the preset's or the model's."""

    model_config = STRICT


class Turn(Input):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Content = Field(description="Text, or a list of parts, of type text or image_url.")


class GenerateInput(Input):
    """What chat and complete have in common."""

    model: ModelName
    settings: InferenceSettings | None = None
    preset: PresetName | None = None
    json_schema: dict[str, object] | None = Field(None, description="A JSON Schema that the answer is made to follow.")


class ChatInput(GenerateInput):
    """Either messages or a prompt."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MOST_MESSAGES)] | None = Field(
        None, description="The conversation so far, the oldest message first."
    )
    prompt: str | None = Field(None, min_length=1, description="Instead of messages: what the user says.")


class CompleteInput(GenerateInput):
    prompt: str = Field(min_length=1, description="Text that the model continues as it is, without a chat template.")


class EmbedInput(Input):
    model: ModelName
    texts: Annotated[list[InputText], Field(min_length=1, max_length=MOST_INPUTS)]
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="Keep so many numbers of each vector."
    )


class RerankInput(Input):
    model: ModelName
    query: InputText
    documents: Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: Annotated[int, Field(ge=1)] | None = Field(None, description="Tell the best ones only.")


class TokenizeInput(Input):
    model: ModelName
    text: str
    add_special: bool = Field(False, description="With begin-of-sequence and the like, where the model has them.")


class NoInput(Input):
    """Takes nothing."""


class ModelInput(Input):
    model: ModelName


class LoadInput(Input):
    model: ModelName
    settings: LoadSettings | None = None
    preset: PresetName | None = None
    identifier: str | None = Field(None, description="What to call the instance; otherwise its model's key.")
    ttl: Ttl | None = Field(None, description="Seconds without work after which it is unloaded; otherwise it stays.")


class UnloadInput(Input):
    instance_id: str = Field(min_length=1, max_length=200, description="As list_models has it, in loaded_instances.")


class SearchInput(Input):
    query: str = Field(max_length=LONGEST_QUERY, description="Words of the repository's name.")
    limit: Annotated[int, Field(ge=1, le=MOST_FOUND)] = USUALLY_FOUND


class DownloadInput(Input):
    model: str = Field(
        min_length=1, max_length=1000, description="user/repo, user/repo@q4_k_m or user/repo:file.gguf of the hub."
    )
    quantization: str | None = Field(None, min_length=1, max_length=50, description="Such as Q4_K_M.")
    revision: str | None = Field(None, min_length=1, max_length=100, description="Commit, tag or branch.")


class SettingsInput(Input):
    model: ModelName
    instance: str | None = Field(None, description="One of the model's instances, where it has several.")
    preset: PresetName | None = None
