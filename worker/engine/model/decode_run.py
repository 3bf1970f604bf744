"""What one llama_decode call computes: runs of tokens, or the cells of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atelier.lora_adapters import Scales

Embeddings = NDArray[np.float32]
Places = NDArray[np.int32]
PLANES = 4  # coordinates of a cell in models that place images in rows and columns (M-RoPE)


@dataclass(frozen=True, slots=True)
class Image:
    """An encoded image, or part of its cells."""

    embeddings: Embeddings  # [cells, width]
    positions: int  # that the whole image takes
    at_once: int  # cells that a call computes; it includes a short rest
    places: Places | None = None  # [PLANES, cells]: time, row, column, rest; None: one cell after another
    before: int = 0  # cells of the image before these
    after: int = 0

    def __len__(self) -> int:
        return len(self.embeddings)

    def part(self, start: int, end: int) -> "Image":
        """The cells from `start` up to `end`."""
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
    """Consecutive tokens of one slot."""

    slot: int
    tokens: Sequence[int]
    start: int  # index of the first one in the slot's text
    silent: int  # how many of the first tokens need no logits
    scales: Scales = ()  # of the adapters: one set for a whole call
    image: Image | None = None  # computed in place of the tokens: in a call of its own, and never cut
    scored: bool = False  # every token's logits are read: in calls of its own

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def alone(self) -> bool:
        """Whether it must not share a call."""
        return self.scored or self.image is not None

    def piece(self, at: int, most: int) -> "Run":
        """Up to `most` of the tokens, from token `at` on."""
        tokens = self.tokens[at : at + most]
        silent = min(len(tokens), max(0, self.silent - at))
        return Run(self.slot, tokens, self.start + at, silent, self.scales, scored=self.scored)
