"""Encoded images as pixels. What a client sends is hostile until it is decoded: few formats, and bounds."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps

from atelier.errors import InvalidRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 40_000_000  # 120 MB of RGB; no model reads a tenth of it


@dataclass(frozen=True, slots=True)
class Picture:
    """Upright, as rows of RGB bytes."""

    format: str  # one of FORMATS
    width: int
    height: int
    rgb: bytes


def decode_picture(encoded: bytes, number: int) -> Picture:
    """The image, of an animation the first; InvalidRequest says what is wrong with image `number` of the request."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about sizes and metadata: the sizes are checked here
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise _refused(number, f"it has {image.width} x {image.height} pixels, and {MOST_PIXELS} are read")
                kind = image.format or ""
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a spoilt file makes them
        raise _refused(number, f"it is no whole image of a format that is read ({', '.join(FORMATS)})") from error
    return Picture(kind, upright.width, upright.height, upright.tobytes())


def _refused(number: int, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Image {number} cannot be used: {reason}.", param="messages")
