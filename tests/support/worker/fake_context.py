"""A llama.cpp context without a model: its logits depend on how every token in the cache was computed.

Each cell's digest is of the cells before it, of its token, and of the call that computed it. So a cache that was
reused, copied or cut wrongly, or a prompt that was cut elsewhere or computed with other adapters, yields other tokens.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.errors import DecodeFailed
from tests.support.worker import byte_vocabulary
from worker.engine.model.context import DecodeInterrupted
from worker.engine.model.decode_run import Run

SPREAD = 8.0  # of the logits
FAVOURITES = [65, 66, 67]  # of a context that repeats itself
SLACK = 8  # tokens before the window that are not overwritten yet
END_BONUS = 0.6  # makes about one token in twelve the last

CELL = np.dtype([("token", "<i4"), ("digest", "V16")])  # of a saved state


class FakeVocabulary:
    """Bytes and an end. The piece of a token is its number, so that a text shows its tokens."""

    size = byte_vocabulary.SIZE
    end_tokens = frozenset([byte_vocabulary.END])
    suppressed_tokens: tuple[int, ...] = ()

    def piece(self, token: int) -> bytes:
        return b"%d " % token

    def is_end(self, token: int) -> bool:
        return token in self.end_tokens


class FakeInterrupt:
    """Ends the calls of a fake context."""

    def __init__(self) -> None:
        self.on = False

    def set(self) -> None:
        self.on = True

    def clear(self) -> None:
        self.on = False


@dataclass(frozen=True, slots=True)
class Computed:
    """A decode call."""

    kind: str  # "prompt" or "next"
    slots: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Cell:
    token: int
    digest: bytes


def _is_prompt(run: Run) -> bool:
    """Several tokens of which one's logits count at most; so are those that a constraint leaves no choice about."""
    return len(run) > 1 and len(run) - run.silent <= 1


class FakeContext:
    def __init__(
        self,
        slots: int,
        *,
        capacity: int | None = None,
        rounding: bool = True,
        mumbles: bool = False,
        sharpness: float = 1.0,
        window: int | None = None,
    ) -> None:
        """`window`: tokens that the next one depends on and that a sequence keeps; 1: a recurrent state. None: all.

        `rounding`: what is computed depends on the size of the call, as with kernels.

        `mumbles`: repeats a few tokens, so that drafts of the next ones are right.
        `sharpness`: multiplies the logits; a sharp context is confident of its likeliest token.
        """
        self.cells: list[list[Cell]] = [[] for _ in range(slots)]
        self.calls: list[Computed] = []
        self.most_cells = 0  # the most that a slot ever held
        self.copies: list[tuple[int, int]] = []
        self.saved: list[int] = []
        self.restored: list[int] = []
        self.refuses_states = False
        self.interrupt = FakeInterrupt()
        self.interrupted = 0
        self.during: Callable[[Computed], None] = lambda call: None  # what happens while it computes
        self.fails: Callable[[Computed], bool] = lambda call: False
        self.checkpoints = 0  # made
        self.resumed: list[tuple[int, int]] = []  # slots, and the lengths whose checkpoints were put into them
        self.refuses_checkpoints = False
        self._window = window
        self._lost = [0] * slots  # of each slot's first tokens, so many are outside of what it keeps
        self._capacity = capacity
        self._rounding = rounding
        self._mumbles = mumbles
        self._sharpness = np.float32(sharpness)
        self._logits: dict[int, NDArray[np.float32]] = {}

    def decode_runs(self, runs: Sequence[Run]) -> None:
        slots = tuple(run.slot for run in runs)
        assert list(slots) == sorted(set(slots)), "llama.cpp computes only neighbouring streams at once"
        assert len({run.scales for run in runs}) == 1, "different adapters in one call"
        self._compute(Computed("prompt" if any(map(_is_prompt, runs)) else "next", slots, sum(map(len, runs))))
        rows = [(run, at) for run in runs for at in range(len(run))]
        for run, at in rows:
            shape = (run.start, len(run)) if self._rounding and len(run) > 1 else ()
            self._put(run.slot, run.tokens[at], run.start + at, (*shape, *run.scales))
        assert not self._rounding or len(runs) in (1, len(rows)), "a run of several tokens has its own call"
        self._logits = {
            index: self._outputs(self.cells[run.slot][run.start + at])
            for index, (run, at) in enumerate(rows)
            if at >= run.silent
        }

    def logits(self, index: int) -> NDArray[np.float32]:
        return self._logits[index]

    def keep_prefix(self, slot: int, tokens: int) -> None:
        assert 0 <= tokens <= len(self.cells[slot]), "kept more than there is"
        assert tokens == 0 or self.can_continue(slot, tokens), "cut where it cannot be continued"
        del self.cells[slot][tokens:]
        if not tokens:
            self._lost[slot] = 0

    def copy(self, source: int, slot: int) -> None:
        assert source != slot
        self.copies.append((source, slot))
        self.cells[slot] = list(self.cells[source])
        self._lost[slot] = self._lost[source]

    @property
    def cuts_in_window(self) -> bool:
        return self._window is not None and self._window > 1

    def can_continue(self, slot: int, tokens: int) -> bool:
        held = len(self.cells[slot])
        return tokens <= held and (self._window is None or self._lost[slot] <= max(0, tokens - self._window))

    def checkpoint(self, slot: int) -> NDArray[np.uint8]:
        if self.refuses_checkpoints:
            raise DecodeFailed
        self.checkpoints += 1
        return self._encoded(self.cells[slot][-1:])

    def put_checkpoint(self, slot: int, tokens: int, state: NDArray[np.uint8]) -> None:
        assert self._window is not None
        if self.refuses_states:
            self.cells[slot] = []
            raise DecodeFailed
        self.resumed.append((slot, tokens))
        assert self._encoded(self.cells[slot][tokens - 1 : tokens]).tobytes() == state.tobytes(), "of another text"
        del self.cells[slot][tokens:]
        self._lost[slot] = max(0, tokens - self._window)

    def state_size(self, slot: int) -> int:
        return CELL.itemsize * len(self.cells[slot])

    def state(self, slot: int) -> NDArray[np.uint8]:
        self.saved.append(slot)
        return self._encoded(self.cells[slot])

    @staticmethod
    def _encoded(cells: Sequence[Cell]) -> NDArray[np.uint8]:
        return np.array([(cell.token, cell.digest) for cell in cells], CELL).view(np.uint8)

    def put_state(self, slot: int, state: NDArray[np.uint8]) -> None:
        self.restored.append(slot)
        self.cells[slot] = []
        if self.refuses_states:
            raise DecodeFailed
        self.cells[slot] = [Cell(int(token), bytes(digest)) for token, digest in state.view(CELL)]
        self._lost[slot] = 0 if self._window is None else max(0, len(self.cells[slot]) - self._window)

    def _compute(self, call: Computed) -> None:
        self.calls.append(call)
        self.during(call)
        if self.interrupt.on:
            self.interrupted += 1
            raise DecodeInterrupted
        if self.fails(call):
            for slot in call.slots:
                self.cells[slot] = [Cell(-1, b"spoilt") for _ in range(len(self.cells[slot]) + call.tokens)]
            raise DecodeFailed
        if self._capacity is not None:
            assert sum(map(len, self.cells)) + call.tokens <= self._capacity, "more than the cache holds"

    def _put(self, slot: int, token: int, position: int, way: tuple[float, ...]) -> None:
        """`way`: how the call computes it."""
        cells = self.cells[slot]
        assert position == len(cells), "a gap or an overlap"
        before = cells[-1].digest if cells else b""
        cells.append(Cell(token, hashlib.blake2b(before + repr((token, way)).encode(), digest_size=16).digest()))
        if self._window is not None:
            slack = SLACK if self._window > 1 else 0
            self._lost[slot] = max(self._lost[slot], len(cells) - self._window - slack)
        self.most_cells = max(self.most_cells, len(cells))

    def _outputs(self, cell: Cell) -> NDArray[np.float32]:
        noise = hashlib.shake_128(cell.digest).digest(2 * FakeVocabulary.size)
        logits = np.frombuffer(noise, dtype="<u2").astype(np.float32) * np.float32(SPREAD / 2**16)
        logits[byte_vocabulary.END] += END_BONUS
        if self._mumbles:
            logits[FAVOURITES] += SPREAD
        return logits * self._sharpness
