"""A route, as a row of its dialect's table: the endpoint, and its part of the OpenAPI document.

Reply types are TypedDicts: what builds a reply is typed to return one, and the OpenAPI document is made of the same
types. Nothing is validated at run time; the integration tests check every reply and stream event against the document.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from typing_extensions import TypeAliasType, TypedDict

from atelier.errors import (
    AtelierError,
    BodyTooSlow,
    DeadlineExceeded,
    Forbidden,
    HubAccessDenied,
    HubUnavailable,
    InvalidRequest,
    LoadFailed,
    MCPConnectionError,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    Unauthenticated,
    Unavailable,
    WorkerLost,
)
from atelier.json_types import Json

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
PLAIN = "text/plain"

# The model of the example requests, and a chat.
MODEL = "smollm2-135m-instruct"
HI = [{"role": "user", "content": "Hi"}]

Errors = tuple[type[AtelierError], ...]
ALWAYS: Errors = (Unauthenticated, Forbidden, Unavailable)
HUB: Errors = (InvalidRequest, NotFound, HubAccessDenied, HubUnavailable)
INFERENCE: Errors = (
    *(InvalidRequest, ModelNotFound, PayloadTooLarge),
    *(LoadFailed, WorkerLost, DeadlineExceeded),
)
HOSTED: Errors = (*INFERENCE, MCPConnectionError)  # of routes that may call tools of MCP servers

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


class Fault(TypedDict):
    """What went wrong, in a reply that is not an error itself."""

    message: str
    type: str
    param: str | None
    code: str | None


Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. The endpoint reads the path, the query and the body itself."""

    operation: str
    """The method and the path: `GET /v1/models/{id:path}`."""
    endpoint: Endpoint
    summary: str
    _: KW_ONLY
    body: type[BaseModel] | None = None
    request: Json | None = None
    """An example of the body."""
    query: Mapping[str, Json] = field(default_factory=dict)
    """The schema of each parameter; all are optional."""
    reply: ReplyType | None = None
    """None: the reply is not JSON."""
    events: ReplyType | None = None
    """The data of each event of a stream, or each of its lines."""
    stream: str = EVENTS
    media: str | None = JSON
    """Of the reply; None: it is empty."""
    errors: Errors = ()
    """In addition to those of every route, and of every body."""
    other_replies: Mapping[str, Json] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.operation.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.operation.partition(" ")[2]

    @property
    def all_errors(self) -> Errors:
        of_bodies = (InvalidRequest, BodyTooSlow) if self.body is not None else ()
        return tuple(dict.fromkeys((*ALWAYS, *of_bodies, *self.errors)))


@dataclass(frozen=True, slots=True)
class SocketRoute:
    """The path of a WebSocket."""

    path: str
    endpoint: Callable[[WebSocket], Awaitable[None]]


class RouteTable(Protocol):
    """A dialect, or a part of one: its endpoints, and the table of their routes."""

    tag: ClassVar[str]
    """The dialect's name in the OpenAPI document."""

    def routes(self) -> Sequence[Route | SocketRoute]: ...
