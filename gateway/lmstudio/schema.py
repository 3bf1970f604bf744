"""The bodies of LM Studio's dialects."""

from typing import Annotated, Any

from pydantic import Field

from atelier.settings import TABLE
from atelier.settings.schema import fields_model
from gateway.openai.schema import Body, ChatBody, Ttl

LOAD_FIELDS = {row.facts.lmstudio: row.name for row in TABLE["load"].values() if row.facts.lmstudio}

LoadSettings = fields_model(
    "LoadSettings", ((row.facts.lmstudio, row) for row in TABLE["load"].values() if row.facts.lmstudio)
)

UNLIMITED = -1


class V0ChatBody(ChatBody):
    max_tokens: Annotated[int, Field(ge=UNLIMITED, le=2**31 - 1, description="-1: no limit.")] | None = None


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
