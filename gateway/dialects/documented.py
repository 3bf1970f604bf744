"""What the OpenAPI says of a route's replies, which the routes build by hand and nothing validates as they go out.

Each dialect's `documented.py` has the schemas of its replies and one entry for each of its routes. The integration
tests hold every reply and every event of a stream against them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from atelier.json_types import Json

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
PLAIN = "text/plain"

# The model of the examples: as a request names it, and as the reply does.
MODEL = "smollm2-135m-instruct"
KEY = f"huggingfacetb/{MODEL}"


T = TypeVar("T")
Nullable = Annotated[T | None, Field(json_schema_extra={"default": None})]
"""Of a field that a reply may leave out: `NotRequired[Nullable[str]]`."""


class Reply(BaseModel):
    """An object of a reply. It has no fields but those that are told."""

    model_config = ConfigDict(extra="forbid")


class Fault(Reply):
    """What went wrong, where a reply that is no error tells of it."""

    message: str
    type: str
    param: str | None
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """One operation: what a good reply is, and an example of a request and of the reply to it."""

    reply: type[BaseModel] | None = None  # None: it has no JSON
    example: Any = None
    request: Json | None = None
    events: type[BaseModel] | None = None  # of its streams: the data of each event, or each line
    stream: str = EVENTS  # how they come
    media: str | None = JSON  # of the reply; None: it is empty
    query: Mapping[str, Json] = field(default_factory=dict)  # the schema of each parameter; all may be left out

    @property
    def schemas(self) -> list[type[BaseModel]]:
        return [kind for kind in (self.reply, self.events) if kind is not None]

    def content(self, schema_of: Callable[[type[BaseModel]], Json], error: Json) -> Json:
        """OpenAPI's `content` of the reply. `error`: the schema of an error, which may end a stream."""
        if self.media is None:
            return {}
        if self.reply is None:
            return {self.media: {"schema": {"type": "string"}, "example": self.example}}
        told: Json = {self.media: {"schema": schema_of(self.reply), "example": self.example}}
        if self.events is not None:
            told[self.stream] = {"schema": {"anyOf": [schema_of(self.events), error]}}
        return told
