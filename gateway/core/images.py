"""The images of a chat: their sources in a request, and the limits and formats of their bytes. Pure."""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from atelier.errors import InvalidRequest
from atelier.json_types import Json

MOST_IMAGES = 64  # of one request
LARGEST_IMAGE = 20 * 2**20  # bytes, encoded as a file is
LARGEST_TOGETHER = 48 * 2**20  # bytes of one request's images
LONGEST_URL = 8192  # characters

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image within the request. `path`: of the field that holds it, for errors."""

    base64: str
    path: str


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image at a URL."""

    url: str
    path: str


ImageSource = EncodedImage | RemoteImage


def image_at(url: str, path: str) -> ImageSource:
    """The image that a URL names or, as a data URL, contains. Raises InvalidRequest."""
    if url[:5].lower() == "data:":
        return image_within(url, path)
    if url[:8].lower().startswith(("http://", "https://")) and len(url) <= LONGEST_URL:
        return RemoteImage(url, path)
    raise InvalidRequest(
        f"{path}: must be a data URL in base64, or an http or https URL of at most {LONGEST_URL} characters", param=path
    )


def image_within(url: str, path: str) -> EncodedImage:
    """The image in a data URL. Its media type is not trusted: the bytes show the format. Raises InvalidRequest."""
    head, comma, data = url.partition(",")
    if not (comma and url[:5].lower() == "data:" and head[-7:].lower() == ";base64"):
        raise InvalidRequest(f"{path}: must be a data URL in base64 (data:image/png;base64,...)", param=path)
    return EncodedImage(data, path)


def content_of(pieces: Iterable[str | ImageSource], joint: str = "\n") -> str | list[Json]:
    """A message's content: a string, or with images a list of parts. Adjacent texts are joined."""
    found = list(pieces)
    texts = [piece for piece in found if isinstance(piece, str)]
    if len(texts) == len(found):
        return joint.join(texts)
    parts: list[Json] = []
    for is_text, run in groupby(found, key=lambda piece: isinstance(piece, str)):
        if not is_text:
            parts += [{"type": "image", "source": source} for source in run]
        elif text := joint.join(map(str, run)):
            parts.append({"type": "text", "text": text})
    return parts


def read_content(
    given: str | Sequence[Part], path: str, piece: Callable[[Part, str], str | ImageSource]
) -> str | list[Json]:
    """Content as clients write it: a string, or parts, each of which `piece` reads with its path in the request.

    `path`: of the content; "" where it comes from an earlier request, and so are the paths of its parts then.
    """
    if isinstance(given, str):
        return given
    return content_of(piece(part, f"{path}[{i}]" if path else "") for i, part in enumerate(given))


def set_apart(messages: Sequence[Json]) -> tuple[list[Json], tuple[ImageSource, ...]]:
    """Messages as workers expect them, with image parts that hold no image; and the images, in order."""
    sources: list[ImageSource] = []
    bare: list[Json] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            sources += [part["source"] for part in content if part["type"] == "image"]
            parts = [{"type": "image"} if part["type"] == "image" else part for part in content]
            message = {**message, "content": parts}
        bare.append(message)
    return bare, tuple(sources)


class Allowance:
    """How many bytes one request's images may still have, counted as they arrive."""

    def __init__(self) -> None:
        self._left = LARGEST_TOGETHER

    def take(self, size: int, path: str) -> None:
        """Raises InvalidRequest when this many more bytes exceed the limit."""
        self._left -= size
        if self._left < 0:
            together = LARGEST_TOGETHER // 2**20
            raise InvalidRequest(f"{path}: the images together are larger than {together} MiB", param=path)


def refuse_many(sources: Sequence[ImageSource]) -> None:
    if len(sources) > MOST_IMAGES:
        path = sources[MOST_IMAGES].path
        raise InvalidRequest(f"{path}: a request may have at most {MOST_IMAGES} images", param=path)


def decode(image: EncodedImage, allowance: Allowance) -> bytes:
    """The image's bytes. Raises InvalidRequest."""
    if len(image.base64) > encoded_length(LARGEST_IMAGE):
        raise too_large(image.path)
    try:
        data = base64.b64decode(image.base64, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"{image.path}: is not valid base64", param=image.path) from None
    allowance.take(len(data), image.path)
    return data


def encoded_length(size: int) -> int:
    """Characters of this many bytes in base64."""
    return -(-size // 3) * 4


def too_large(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: the image is larger than {LARGEST_IMAGE // 2**20} MiB", param=path)


def image_format(data: bytes) -> str | None:
    """By its first bytes; None for an unsupported format."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "bmp" if data.startswith(b"BM") else None


def known_image(data: bytes, path: str) -> bytes:
    """The same bytes. Raises InvalidRequest when they are not an image of a supported format."""
    if image_format(data) is None:
        raise InvalidRequest(f"{path}: is not a PNG, JPEG, WebP, GIF or BMP image", param=path)
    return data
