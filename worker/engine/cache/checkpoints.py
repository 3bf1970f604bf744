"""Checkpoints: copies of the part of a sequence's state that cannot be cut, taken at chosen lengths of its text.

A recurrent state, or the cells of a sliding window, exist for the end of a text alone. A checkpoint keeps them as they
were after fewer tokens; with it, a sequence can be cut there. Its other cells, if it has any, are cut at any token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLOT_MOST = 16  # checkpoints of one slot, where the setting allows fewer for each: idle slots leave theirs to others


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """`tokens`: the length of the text. `state`: bytes, as the context returned them."""

    tokens: int
    state: NDArray[np.uint8]


class Checkpoints:
    """The checkpoints of all slots, a bounded number. Slots that hold the same text share them."""

    def __init__(self, most: int, slots: int) -> None:
        """`most`: for each slot, so that `slots` times as many exist together."""
        self._most = most * slots
        self._slot_most = max(most, SLOT_MOST)
        self._of: dict[int, list[Checkpoint]] = {}  # by slot, the least recently used first; each by length

    def __len__(self) -> int:
        """How many there are; a shared one counts once."""
        return len({checkpoint for own in self._of.values() for checkpoint in own})

    def lengths(self, slot: int) -> list[int]:
        return [checkpoint.tokens for checkpoint in self._of.get(slot, ())]

    def latest(self, slot: int, tokens: int) -> Checkpoint | None:
        """The slot's last one after at most so many tokens."""
        return next((each for each in reversed(self._of.get(slot, ())) if each.tokens <= tokens), None)

    def add(self, slot: int, checkpoint: Checkpoint) -> None:
        """The slot has this one too, after its others. Makes room for it."""
        own = self._use(slot)
        own.append(checkpoint)
        while len(own) > self._slot_most:
            del own[least_useful([each.tokens for each in own])]
        self._drop_excess()

    def cut(self, slot: int, tokens: int) -> None:
        """The slot holds no more than so many tokens."""
        kept = [each for each in self._of.pop(slot, ()) if each.tokens <= tokens]
        if kept:
            self._of[slot] = kept

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """The slot holds the first tokens of another one."""
        self._of.pop(slot, None)
        shared = [each for each in self._use(source) if each.tokens <= tokens]
        if shared:
            self._of[slot] = shared

    def _use(self, slot: int) -> list[Checkpoint]:
        own = self._of[slot] = self._of.pop(slot, [])
        return own

    def _drop_excess(self) -> None:
        """Of the slots that were not used for longest."""
        while len(self) > self._most:
            slot = next(slot for slot, own in self._of.items() if own)
            own = self._of[slot]
            del own[least_useful([each.tokens for each in own])]


def least_useful(lengths: Sequence[int]) -> int:
    """Which of a slot's checkpoints to drop: the one without which the least has to be computed again.

    Most prompts continue a text or change its end, so gaps may grow with the distance from the end. The last one stays;
    so does the first, which most conversations share, while there are others.
    """
    if len(lengths) < 3:
        return 0
    end = lengths[-1]

    def gap(at: int) -> float:
        return (lengths[at + 1] - lengths[at - 1]) / (end - lengths[at] + 1)

    return min(range(1, len(lengths) - 1), key=gap)
