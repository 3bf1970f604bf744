"""The images among a chat's messages: parts of a content that is a list."""

from collections.abc import Callable, Sequence
from typing import Any

Message = dict[str, Any]


def is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image"


def count_images(messages: Sequence[Message]) -> int:
    return sum(is_image(part) for message in messages for part in _parts(message))


def gap_in_images(messages: Sequence[Message], start: int, end: int) -> tuple[int, int]:
    """Which of a chat's images are in its messages from `start` up to `end`: the first, and the one after the last."""
    return count_images(messages[:start]), count_images(messages[:end])


def with_images_written(messages: Sequence[Message], write: Callable[[int], str]) -> list[Message]:
    """The messages with a text in place of each image part. `write`: of the nth image, from 0."""
    number = -1

    def written(part: Any) -> Any:
        nonlocal number
        if not is_image(part):
            return part
        number += 1
        return {"type": "text", "text": write(number)}

    return [
        {**message, "content": [written(part) for part in parts]} if (parts := _parts(message)) else message
        for message in messages
    ]


def _parts(message: Message) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []
