"""What a step computes: pure decisions, no llama.cpp.

A prompt is computed in slices that end on a grid of `grid` tokens; the last slice runs to the
prompt's end and is never tiny, because kernels for a few tokens round differently from those for
many. Slices depend on the prompt alone, each has a llama_decode call of its own, and a cached
prefix is reused up to a grid line only: so a text does not depend on what else runs or ran.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

SMALLEST_SLICE = 16  # tokens; from here on a slice's result does not depend on its length


def slice_end(start: int, total: int, grid: int) -> int:
    """Where the slice that starts at `start` ends, in a prompt of `total` tokens."""
    line = (start // grid + 1) * grid
    return total if total - line < SMALLEST_SLICE else line


def reusable_prefix(cached: Seq[int], prompt: Seq[int], grid: int) -> int:
    """Tokens of the prompt that need not be computed when `cached` is in the KV cache."""
    common = _common_prefix(cached, prompt)
    longest = max(0, len(prompt) - SMALLEST_SLICE)
    return min(common, longest) // grid * grid


def _common_prefix(a: Seq[int], b: Seq[int]) -> int:
    shorter = min(len(a), len(b))
    for i in range(shorter):
        if a[i] != b[i]:
            return i
    return shorter


@dataclass(slots=True)
class Slot:
    """One sequence of the KV cache, and the prompt tokens in it that may be reused."""

    id: int
    cached: list[int] = field(default_factory=list)
    last_used: int = 0  # number of the admission


@dataclass(frozen=True, slots=True)
class Placement:
    slot: Slot
    reused: int  # tokens


def choose_slot(prompt: Seq[int], free: Seq[Slot], grid: int) -> Placement:
    """The free slot whose prefix is worth going on from; without one, the slot unused for longest.

    A long chat is not thrown away for the few tokens of a system prompt that another one shares with it.
    """
    placements = [Placement(slot, reusable_prefix(slot.cached, prompt, grid)) for slot in free]
    worth = [p for p in placements if p.reused and p.reused * 2 >= len(p.slot.cached)]
    if worth:
        return max(worth, key=lambda placement: placement.reused)
    return min(placements, key=lambda placement: placement.slot.last_used)


@dataclass(frozen=True, slots=True)
class Prefill:
    """How far a sequence's prompt is computed, in tokens."""

    index: int  # of the sequence, for the caller to know it by
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Slice:
    index: int
    start: int
    end: int


def plan_slices(prefills: Seq[Prefill], grid: int) -> list[Slice]:
    """The slices of this step: first come, first served, about `grid` tokens together.

    Running streams wait for these, so one long prompt costs them a slice a step and no more,
    while several short prompts share a step.
    """
    planned: list[Slice] = []
    left = grid
    for prefill in prefills:
        end = slice_end(prefill.done, prefill.total, grid)
        if planned and end - prefill.done > left:
            break
        planned.append(Slice(prefill.index, prefill.done, end))
        left -= end - prefill.done
        if left <= 0:
            break
    return planned


def next_in_turn(waiting: Seq[str], running: Seq[str]) -> int:
    """Which of the waiting sequences, given by their fairness keys in order of arrival, starts next.

    The key with the fewest running sequences; among equals the one that came first:

        running: A A B   waiting: A A B C   -->  C, then B, then A, then A
    """
    return min(range(len(waiting)), key=lambda i: (running.count(waiting[i]), i))


def fits_in_cache(reserved: int, needed: int, capacity: int | None) -> bool:
    """Whether a sequence of `needed` tokens may start beside `reserved` ones.

    `capacity` is that of a unified cache; None: each slot has a cache of its own.
    """
    return capacity is None or reserved + needed <= capacity
