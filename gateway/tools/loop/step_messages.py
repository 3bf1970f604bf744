"""A step of the loop as messages for chat templates, with as many images as fit."""

from collections.abc import Sequence
from dataclasses import replace

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.call import tool_call_entry, tool_message
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.core.images import (
    LARGEST_TOGETHER,
    MOST_IMAGES,
    Allowance,
    EncodedImage,
    ImageSource,
    content_of,
    decode,
    known_image,
)
from gateway.tools.loop.toolset import read_arguments

UNSUPPORTED = "(An image, which this model cannot see.)"
UNREADABLE = "(An image that cannot be read.)"
LEFT_OUT = "[An image was left out: this answer has too many.]"


def step_messages(text: str, reasoning: str, ended: Sequence[HostedCallEnded], *, vision: bool) -> list[Json]:
    """The model's message with its calls, and a message for each result. `vision`: whether the model accepts images."""
    answer: Json = {"role": "assistant", "content": text}
    if ended:
        answer["tool_calls"] = [_ended_call(each) for each in ended]
    if reasoning:
        answer["reasoning_content"] = reasoning
    return [answer, *(result_message(each, vision=vision) for each in ended)]


def _ended_call(ended: HostedCallEnded) -> Json:
    """Arguments that are not an object are left out: many templates fail on them."""
    arguments = "{}" if read_arguments(ended.arguments) is None else ended.arguments
    return tool_call_entry(ended.id, ended.tool.shown, arguments)


def result_message(ended: HostedCallEnded, *, vision: bool) -> Json:
    content = f"Error: {ended.error}" if ended.output is None else _content(ended.output, vision=vision)
    return tool_message(ended.id, ended.tool.shown, content)


def _content(output: ToolOutput, *, vision: bool) -> str | list[Json]:
    pieces = [piece if isinstance(piece, str) else _image(piece, vision=vision) for piece in output.pieces]
    return content_of(["Error:", *pieces] if output.is_error else pieces)


def _image(image: ToolImage, *, vision: bool) -> str | EncodedImage:
    """Checked here, since an unreadable image in the prompt would fail the whole answer."""
    if not vision:
        return UNSUPPORTED
    source = EncodedImage(image.data, "tools")
    try:
        known_image(decode(source, Allowance()), "tools")
    except InvalidRequest:
        return UNREADABLE
    return source


class ImageBudget:
    """How many images the tools of one answer may still return: a request has a limit of them.

    Owned by the answer's loop. Without it the first image too many would fail the whole answer.
    """

    def __init__(self, images: Sequence[ImageSource]) -> None:
        """`images`: those of the request."""
        self._images_left = MOST_IMAGES - len(images)
        self._bytes_left = LARGEST_TOGETHER - sum(
            _size(each.base64) for each in images if isinstance(each, EncodedImage)
        )

    def fitted(self, ended: HostedCallEnded) -> HostedCallEnded:
        """The same, with a note in place of each image that does not fit."""
        output = ended.output
        if output is None or not output.images:
            return ended
        pieces = [piece if isinstance(piece, str) or self._claim(piece) else LEFT_OUT for piece in output.pieces]
        return replace(ended, output=replace(output, pieces=tuple(pieces)))

    def _claim(self, image: ToolImage) -> bool:
        size = _size(image.data)
        if self._images_left < 1 or self._bytes_left < size:
            return False
        self._images_left -= 1
        self._bytes_left -= size
        return True


def _size(base64: str) -> int:
    """An upper bound, in bytes."""
    return len(base64) // 4 * 3 + 3
