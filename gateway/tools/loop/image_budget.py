"""How many images the tools of one answer may show: no more than a request may have."""

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolImage
from gateway.core.images import LARGEST_TOGETHER, MOST_IMAGES, EncodedImage, ImageSource

LEFT_OUT = "[An image was left out: this answer has too many.]"


class ImageRoom:
    """Owned by the answer's loop. Without it the first image too many would fail the whole answer."""

    def __init__(self, images: Sequence[ImageSource]) -> None:
        """`images`: those that the request has brought."""
        self._images = MOST_IMAGES - len(images)
        self._bytes = LARGEST_TOGETHER - sum(_size(each.base64) for each in images if isinstance(each, EncodedImage))

    def fitted(self, ended: HostedCallEnded) -> HostedCallEnded:
        """The same, with a note in place of each image for which there is no room."""
        output = ended.output
        if output is None or not output.images:
            return ended
        pieces = [piece if isinstance(piece, str) or self._takes(piece) else LEFT_OUT for piece in output.pieces]
        return replace(ended, output=replace(output, pieces=tuple(pieces)))

    def _takes(self, image: ToolImage) -> bool:
        size = _size(image.data)
        if self._images < 1 or self._bytes < size:
            return False
        self._images -= 1
        self._bytes -= size
        return True


def _size(base64: str) -> int:
    """In bytes, at most."""
    return len(base64) // 4 * 3 + 3
