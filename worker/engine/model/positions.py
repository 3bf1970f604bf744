"""The positions of each slot's tokens in models where they differ from the tokens' numbers in the text.

An image that is placed in rows and columns (M-RoPE) has cells side by side: it takes fewer positions than it has
cells, and the text continues after its longer side.

    token     0 1 2 | 3 4 5 6 7 8 | 9 10        3 columns, 2 rows
    position  0 1 2 | 3 3 3 3 3 3 | 6  7        3 positions: 3, 4, 5
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.errors import DecodeFailed


@dataclass(frozen=True, slots=True)
class Span:
    """An image in a slot: its cells are the tokens from `start` up to `end`."""

    start: int
    end: int
    saved: int  # how many positions fewer than tokens there are from the beginning of the text to this image's end


class Positions:
    """The images of every slot that take fewer positions than cells. Owned by the context."""

    def __init__(self) -> None:
        self._spans: dict[int, list[Span]] = {}

    def saved(self, slot: int, token: int) -> int:
        """By how much this token's position is less than its number. Raises DecodeFailed within an image."""
        spans = self._spans.get(slot)
        if not spans:
            return 0
        before = bisect_right(spans, token, key=lambda span: span.end)
        if before < len(spans) and spans[before].start < token:
            raise DecodeFailed(f"A cache cannot be cut at token {token}, within an image.")
        return spans[before - 1].saved if before else 0

    def add(self, slot: int, start: int, cells: int, positions: int) -> None:
        """Note an image in the slot, after all others."""
        if positions != cells:
            saved = self.saved(slot, start) + cells - positions
            self._spans.setdefault(slot, []).append(Span(start, start + cells, saved))

    def cut(self, slot: int, tokens: int) -> None:
        """The slot keeps only its first tokens."""
        kept = [span for span in self._spans.pop(slot, ()) if span.end <= tokens]
        if kept:
            self._spans[slot] = kept

    def copy(self, source: int, slot: int) -> None:
        self._spans.pop(slot, None)
        if source in self._spans:
            self._spans[slot] = list(self._spans[source])

    def clear(self) -> None:
        self._spans.clear()

    def encoded_size(self, slot: int) -> int:
        """Bytes that `encoded` returns."""
        return 4 * (3 * len(self._spans.get(slot, ())) + 1)

    def encoded(self, slot: int) -> NDArray[np.uint8]:
        """The end of a saved state: start, end and saved positions of each image, then the number of images."""
        spans = self._spans.get(slot, [])
        numbers = [number for span in spans for number in (span.start, span.end, span.saved)]
        return np.array([*numbers, len(spans)], "<i4").view(np.uint8)

    def decode(self, slot: int, state: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Read the images from the end of a saved state; returns the rest. Raises DecodeFailed for any other end."""
        count = int(state[-4:].view("<i4")[0]) if state.size >= 4 else -1
        size = 4 * (3 * count + 1)
        if not 0 <= count <= size <= state.size:
            raise DecodeFailed(f"The saved cache of sequence {slot} does not list its images.")
        numbers = state[state.size - size : -4].view("<i4").reshape(-1, 3).tolist()
        self._spans.pop(slot, None)
        if numbers:
            self._spans[slot] = [Span(*each) for each in numbers]
        return state[: state.size - size]
