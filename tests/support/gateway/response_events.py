"""A stream of OpenAI's responses, validated with the official client's types."""

import json
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

_EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: TypeAdapter(kind)
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}
_RESPONSE = TypeAdapter(Response)


def checked_response(value: Any) -> Response:
    """The response as the client's type. Raises ValidationError if it does not match."""
    return _RESPONSE.validate_python(value)


def checked_events(text: str) -> list[Any]:
    """Every event as the client's type, in order; checks the frames' names and that numbers have no gap."""
    events = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert (name, value["sequence_number"]) == (f"event: {value['type']}", number)
        events.append(_EVENTS[value["type"]].validate_python(value))
    return events
