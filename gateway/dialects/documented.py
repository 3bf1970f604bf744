"""How a route's replies are documented.

Reply types are TypedDicts: what builds a reply is typed to return one, and the OpenAPI document is made of the same
types. Nothing is validated at run time; the integration tests check every reply and stream event against the document.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import TypeAliasType, TypedDict

from atelier.json_types import Json

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
PLAIN = "text/plain"

# The model of the examples: as a request names it, and as the reply does.
MODEL = "smollm2-135m-instruct"
KEY = f"huggingfacetb/{MODEL}"


T = TypeVar("T")
OR_NULL = Field(json_schema_extra={"default": None})
Nullable = Annotated[T | None, OR_NULL]
"""The type of a field that a reply may omit: `NotRequired[Nullable[str]]`."""

ReplyType = type | TypeAliasType
"""A TypedDict, or a named union of them."""


class ReplySchema(GenerateJsonSchema):
    """A reply's TypedDict has the fields that it declares, and no others."""

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        return {**super().typed_dict_schema(schema), "additionalProperties": False}


class Reply(BaseModel):
    """The structured result of an MCP tool. It has the fields that it declares, and no others."""

    model_config = ConfigDict(extra="forbid")


class Fault(TypedDict):
    """What went wrong, where a reply that is no error tells of it."""

    message: str
    type: str
    param: str | None
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """One operation: what a good reply is, and an example of a request and of the reply to it."""

    reply: ReplyType | None = None  # None: it has no JSON
    example: Any = None
    request: Json | None = None
    events: ReplyType | None = None  # of its streams: the data of each event, or each line
    stream: str = EVENTS  # how they come
    media: str | None = JSON  # of the reply; None: it is empty
    query: Mapping[str, Json] = field(default_factory=dict)  # the schema of each parameter; all may be left out

    @property
    def schemas(self) -> list[ReplyType]:
        return [kind for kind in (self.reply, self.events) if kind is not None]

    def content(self, schema_of: Callable[[ReplyType], Json], error: Json) -> Json:
        """OpenAPI's `content` of the reply. `error`: the schema of an error, which may end a stream."""
        if self.media is None:
            return {}
        if self.reply is None:
            return {self.media: {"schema": {"type": "string"}, "example": self.example}}
        told: Json = {self.media: {"schema": schema_of(self.reply), "example": self.example}}
        if self.events is not None:
            told[self.stream] = {"schema": {"anyOf": [schema_of(self.events), error]}}
        return told
