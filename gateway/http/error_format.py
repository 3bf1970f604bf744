"""How one dialect tells its clients of an error."""

from collections.abc import Callable
from dataclasses import dataclass

from atelier.errors import AtelierError
from atelier.json_types import Json


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """Pure. `body` is given the request's id; `in_stream` makes an event of the encoded body."""

    body: Callable[[AtelierError, str], Json]
    in_stream: Callable[[bytes], bytes]
    name: str  # of its schema in OpenAPI
    schema: Json
