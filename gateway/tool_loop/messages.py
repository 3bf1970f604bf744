"""A step of the loop as the messages that chat templates take. Pure."""

from collections.abc import Sequence
from typing import Any

import orjson

from atelier.errors import InvalidRequest
from gateway.events import Completion, HostedCallEnded
from gateway.images import Allowance, EncodedImage, ImageSource, content_of, decode, known_image
from gateway.mcp_host.tool import ToolImage, ToolOutput
from gateway.tool_loop.running import read_arguments

Json = dict[str, Any]

UNSEEN = "(An image, which this model cannot see.)"
UNREADABLE = "(An image that cannot be read.)"


def step_messages(completion: Completion, ended: Sequence[HostedCallEnded], *, sees: bool) -> list[Json]:
    """What the model wrote and called, and what came of each call. `sees`: whether the model sees images."""
    calls = [call_message(each) for each in ended]
    said: Json = {"role": "assistant", "content": completion.text, "tool_calls": calls}
    if completion.reasoning:
        said["reasoning_content"] = completion.reasoning
    return [said, *(result_message(each, sees=sees) for each in ended)]


def call_message(ended: HostedCallEnded) -> Json:
    """A call as templates take it: arguments that are no object, which many cannot write, are left out."""
    arguments = "{}" if read_arguments(ended.arguments) is None else ended.arguments
    return {"id": ended.id, "type": "function", "function": {"name": ended.tool.shown, "arguments": arguments}}


def result_message(ended: HostedCallEnded, *, sees: bool) -> Json:
    content = f"Error: {ended.error}" if ended.output is None else output_content(ended.output, sees=sees)
    return {"role": "tool", "tool_call_id": ended.id, "name": ended.tool.shown, "content": content}


def output_content(output: ToolOutput, *, sees: bool) -> str | list[Json]:
    """What the model gets to read and see."""
    pieces = [piece if isinstance(piece, str) else seen_image(piece, sees=sees) for piece in output.pieces]
    if not pieces and output.structured is not None:
        pieces = [orjson.dumps(output.structured).decode()]
    if output.is_error:
        pieces = ["Error:", *pieces]
    return content_of(pieces)


def seen_image(image: ToolImage, *, sees: bool) -> str | ImageSource:
    """A server's word that this is an image is not enough: one that cannot be read would fail the whole answer."""
    if not sees:
        return UNSEEN
    source = EncodedImage(image.data, "tools")
    try:
        known_image(decode(source, Allowance()), "tools")
    except InvalidRequest:
        return UNREADABLE
    return source
