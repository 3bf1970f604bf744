"""The bodies of our own routes."""

from typing import Annotated, Literal

from pydantic import Field

from atelier.json_types import Json
from atelier.names import MOST_REPLICAS
from atelier.settings.settings_schema import GROUP_MODELS
from gateway.core.question import MOST_FIELDS
from gateway.dialects.body import Body

ModelReference = Annotated[str, Field(min_length=1, max_length=200, description="Key of a model, or its short form.")]

PRESET_MODEL = "Key of the only model that the preset is for. Default: any model."
GROUP = {
    group: f"Settings by name: {', '.join(list(model.model_fields)[:3])}, ..." for group, model in GROUP_MODELS.items()
}
REMOVES = " null removes a setting."


class ImportBody(Body):
    path: str = Field(min_length=1, max_length=4096, description="Of a GGUF file on the server's machine.")
    key: str | None = Field(None, description="publisher/name. Default: derived from the file.")
    mode: Literal["copy", "link", "in_place"] = Field("copy", description="How the file enters the library.")


class ModelBody(Body):
    model: ModelReference


class DownloadBody(Body):
    model: str = Field(
        min_length=1,
        max_length=1000,
        description="user/repo, user/repo@q4_k_m, user/repo:file.gguf, or the repository's address on the hub.",
    )
    quantization: str | None = Field(None, min_length=1, max_length=50, description="Such as Q4_K_M.")
    revision: str | None = Field(None, min_length=1, max_length=100, description="Commit, tag or branch.")


class PresetBody(Body):
    """The groups are validated against the table of settings, whose errors name the field."""

    model: str | None = Field(None, max_length=200, description=PRESET_MODEL)
    load: Json = Field(default_factory=dict, description=GROUP["load"])
    prompt: Json = Field(default_factory=dict, description=GROUP["prompt"])
    inference: Json = Field(default_factory=dict, description=GROUP["inference"])
    version: int | None = Field(
        None, ge=0, le=2**31 - 1, description="The current version, which is replaced; 0: there must be none."
    )


class PresetChangeBody(Body):
    model: str | None = Field(None, max_length=200, description=PRESET_MODEL)
    load: Json | None = Field(None, description=GROUP["load"] + REMOVES)
    prompt: Json | None = Field(None, description=GROUP["prompt"] + REMOVES)
    inference: Json | None = Field(None, description=GROUP["inference"] + REMOVES)
    version: int | None = Field(None, ge=0, le=2**31 - 1, description="The version to change. Default: the newest.")


class DuplicateBody(Body):
    name: str = Field(min_length=1, max_length=200, description="Of the copy.")


class PresetImportBody(Body):
    file: Json = Field(description="An exported preset, or the content of an LM Studio *.preset.json.")
    name: str | None = Field(None, min_length=1, max_length=200, description="Default: the file's.")
    replace: bool = Field(False, description="Replace an existing preset of that name.")


class ReplicasBody(Body):
    model: ModelReference
    min: int | None = Field(None, ge=0, le=MOST_REPLICAS, description="Instances to keep loaded. Default: 0.")
    max: int | None = Field(
        None,
        ge=1,
        le=MOST_REPLICAS,
        description="Instances to scale up to while requests wait. Default: the minimum, at least 1. "
        "Set neither limit to stop scaling.",
    )


class DefaultPresetBody(Body):
    model: ModelReference
    preset: str | None = Field(None, max_length=200, description="The model's default preset; null: none.")


class ElicitationBody(Body):
    action: Literal["accept", "decline", "cancel"]
    content: Json | None = Field(
        None, max_length=MOST_FIELDS, description="With action accept: values that requested_schema describes."
    )
