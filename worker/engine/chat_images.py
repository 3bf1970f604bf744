"""The images of a chat: parts of its messages, and pixels once they are decoded.

What a client sends is hostile until it is decoded: few formats are read, within bounds.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from atelier.errors import InvalidRequest
from atelier.json_types import Json

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 40_000_000  # 120 MB of RGB; no model reads a tenth of it


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, upright, as rows of RGB bytes."""

    format: str  # one of FORMATS
    width: int
    height: int
    rgb: bytes


def decode_picture(encoded: bytes, number: int) -> Picture:
    """Decode image `number` of a request, of an animation the first frame. Raises InvalidRequest."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes and metadata: the size is checked here
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    size = f"{image.width} x {image.height}"
                    raise _rejected(number, f"it has {size} pixels, and at most {MOST_PIXELS} are accepted")
                kind = image.format or ""
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except InvalidRequest:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        raise _rejected(number, f"it is not a complete image in a supported format ({', '.join(FORMATS)})") from error
    return Picture(kind, upright.width, upright.height, upright.tobytes())


def _rejected(number: int, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Image {number} cannot be used: {reason}.", param="messages")


def count_images(messages: Sequence[Json]) -> int:
    return sum(_is_image(part) for message in messages for part in _parts(message))


def image_range(messages: Sequence[Json], start: int, end: int) -> tuple[int, int]:
    """The numbers of the images in the messages from `start` up to `end`: the first, and one past the last."""
    return count_images(messages[:start]), count_images(messages[:end])


def with_images_written(messages: Sequence[Json], write: Callable[[int], str]) -> list[Json]:
    """The messages with a text in place of each image. `write`: returns the text for an image by its number, from 0."""
    number = -1

    def written(part: object) -> object:
        nonlocal number
        if not _is_image(part):
            return part
        number += 1
        return {"type": "text", "text": write(number)}

    return [
        {**message, "content": [written(part) for part in parts]} if (parts := _parts(message)) else message
        for message in messages
    ]


def _parts(message: Json) -> list[object]:
    """The parts of a content that is a list; text has none."""
    content = message.get("content")
    return content if isinstance(content, list) else []


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "image"
