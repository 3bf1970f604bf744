"""Images as files of a format."""

import io
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """`options`: of Pillow's writer."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(seed: int = 0, width: int = 40, height: int = 30) -> bytes:
    """A PNG of random pixels, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encoded(Image.fromarray(pixels))


def red(width: int, height: int, kind: str = "PNG", **options: Any) -> bytes:
    return encoded(Image.new("RGB", (width, height), "red"), kind, **options)
