"""What one llama_decode call computes: runs of tokens, or the cells of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atelier.adapters import Scales

Embeddings = NDArray[np.float32]
Places = NDArray[np.int32]
PLANES = 4  # numbers that say where a cell is, of models that place images in rows and columns (M-RoPE)


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the model reads it, or a part of one: some of its cells."""

    embeddings: Embeddings  # [cells, width]
    positions: int  # that the whole image takes
    at_once: int  # cells that a call computes, and a short rest with them
    places: Places | None = None  # [PLANES, cells]: time, row, column, rest; None: one cell after another
    before: int = 0  # cells of the image that come before these
    after: int = 0

    def __len__(self) -> int:
        return len(self.embeddings)

    def part(self, start: int, end: int) -> "Image":
        """These of its cells."""
        places = None if self.places is None else self.places[:, start:end]
        return replace(
            self,
            embeddings=self.embeddings[start:end],
            places=places,
            before=self.before + start,
            after=self.after + len(self) - end,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one slot. The logits of the first `silent` ones are not needed."""

    slot: int
    tokens: Sequence[int]
    start: int  # where the first one goes in the sequence
    silent: int
    scales: Scales = ()  # of the adapters: one set for a whole call
    image: Image | None = None  # what is computed in place of tokens: in a call of its own, and not cut further
    rated: bool = False  # every token's logits are read: in calls of its own

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def alone(self) -> bool:
        """It shares no call."""
        return self.rated or self.image is not None

    def piece(self, at: int, most: int) -> "Run":
        """Up to `most` of its tokens, from token `at` on."""
        tokens = self.tokens[at : at + most]
        silent = min(len(tokens), max(0, self.silent - at))
        return Run(self.slot, tokens, self.start + at, silent, self.scales, rated=self.rated)
