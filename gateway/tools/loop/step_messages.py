"""A step of the loop as the messages that chat templates take. Pure."""

from collections.abc import Sequence

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.call import tool_call_entry, tool_message
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.core.images import Allowance, EncodedImage, content_of, decode, known_image
from gateway.tools.loop.running_calls import read_arguments

UNSEEN = "(An image, which this model cannot see.)"
UNREADABLE = "(An image that cannot be read.)"


def step_messages(text: str, reasoning: str, ended: Sequence[HostedCallEnded], *, sees: bool) -> list[Json]:
    """What the model wrote and called, and what came of each call. `sees`: whether the model sees images."""
    said: Json = {"role": "assistant", "content": text}
    if ended:
        said["tool_calls"] = [_called(each) for each in ended]
    if reasoning:
        said["reasoning_content"] = reasoning
    return [said, *(result_message(each, sees=sees) for each in ended)]


def _called(ended: HostedCallEnded) -> Json:
    """Arguments that are no object, which many templates cannot write, are left out."""
    arguments = "{}" if read_arguments(ended.arguments) is None else ended.arguments
    return tool_call_entry(ended.id, ended.tool.shown, arguments)


def result_message(ended: HostedCallEnded, *, sees: bool) -> Json:
    content = f"Error: {ended.error}" if ended.output is None else _content(ended.output, sees=sees)
    return tool_message(ended.id, ended.tool.shown, content)


def _content(output: ToolOutput, *, sees: bool) -> str | list[Json]:
    """What the model gets to read and see."""
    pieces = [piece if isinstance(piece, str) else _image(piece, sees=sees) for piece in output.pieces]
    return content_of(["Error:", *pieces] if output.is_error else pieces)


def _image(image: ToolImage, *, sees: bool) -> str | EncodedImage:
    """A server's word that this is an image is not enough: one that cannot be read would fail the whole answer."""
    if not sees:
        return UNSEEN
    source = EncodedImage(image.data, "tools")
    try:
        known_image(decode(source, Allowance()), "tools")
    except InvalidRequest:
        return UNREADABLE
    return source
