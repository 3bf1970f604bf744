"""The bodies of our own routes."""

from typing import Annotated, Any, Literal

from pydantic import Field

from atelier.names import MOST_REPLICAS
from atelier.settings.settings_schema import GROUP_MODELS
from gateway.dialects.body import Body

Version = Annotated[int, Field(ge=0, le=2**31 - 1)]
GROUP = {
    group: f"Settings by name: {', '.join(list(model.model_fields)[:3])}, ..." for group, model in GROUP_MODELS.items()
}


class ImportBody(Body):
    path: str = Field(min_length=1, max_length=4096, description="Of a GGUF file on the server's machine.")
    key: str | None = Field(None, description="publisher/name; otherwise made from the file.")
    mode: Literal["copy", "link", "in_place"] = Field("copy", description="What becomes of the file.")


class ModelBody(Body):
    model: str = Field(min_length=1, max_length=200, description="Key of a model, or its short form.")


class DownloadBody(Body):
    model: str = Field(
        min_length=1,
        max_length=1000,
        description="user/repo, user/repo@q4_k_m, user/repo:file.gguf, or the repository's address on the hub.",
    )
    quantization: str | None = Field(None, min_length=1, max_length=50, description="Such as Q4_K_M.")
    revision: str | None = Field(None, min_length=1, max_length=100, description="Commit, tag or branch.")


class PresetBody(Body):
    """The groups are checked against the table of settings, which names the field at fault."""

    model: str | None = Field(None, max_length=200, description="Key of the only model that it is meant for.")
    load: dict[str, Any] = Field(default_factory=dict, description=GROUP["load"])
    prompt: dict[str, Any] = Field(default_factory=dict, description=GROUP["prompt"])
    inference: dict[str, Any] = Field(default_factory=dict, description=GROUP["inference"])
    version: int | None = Field(
        None, ge=0, le=2**31 - 1, description="The version that is to be replaced; 0: there shall be none."
    )


class PresetChangeBody(Body):
    model: str | None = Field(None, max_length=200, description="Key of the only model that it is meant for.")
    load: dict[str, Any] | None = Field(None, description=GROUP["load"] + " null takes one out.")
    prompt: dict[str, Any] | None = Field(None, description=GROUP["prompt"] + " null takes one out.")
    inference: dict[str, Any] | None = Field(None, description=GROUP["inference"] + " null takes one out.")
    version: int | None = Field(
        None, ge=0, le=2**31 - 1, description="The version that is to be changed; otherwise the newest."
    )


class DuplicateBody(Body):
    name: str = Field(min_length=1, max_length=200, description="Of the copy.")


class PresetImportBody(Body):
    file: dict[str, Any] = Field(description="An exported preset, or a *.preset.json of LM Studio's.")
    name: str | None = Field(None, min_length=1, max_length=200, description="Instead of the one in the file.")
    replace: bool = Field(False, description="Whether a preset of that name may be there already.")


class ReplicasBody(Body):
    model: str = Field(min_length=1, max_length=200, description="Key of a model, or its short form.")
    min: int | None = Field(
        None, ge=0, le=MOST_REPLICAS, description="Instances that are kept loaded; without, none is."
    )
    max: int | None = Field(
        None,
        ge=1,
        le=MOST_REPLICAS,
        description="Instances up to which more are started while calls wait; without, the minimum, or one. "
        "Neither: as many as are loaded.",
    )


class DefaultPresetBody(Body):
    model: str = Field(min_length=1, max_length=200, description="Key of a model, or its short form.")
    preset: str | None = Field(None, max_length=200, description="Its default from now on; null: none.")
