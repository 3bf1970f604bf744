"""Scheduling: which slot a prompt gets, how it begins, and how much prefill a step computes. Pure."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from worker.engine.batching.fairness import Bid, levels
from worker.engine.cache.prefix_tree import Match

RETURNS = 0.5  # the share of conversations that continue before their slot is reused
UNIT = 2  # tokens; late in a long context each takes as long as a decode step
STREAM_PAUSE = 1.5  # most prefill beside running streams, in decode steps
BURST_SECONDS = 4.0  # most prefill of a burst, whose prompts are computed side by side
LONGEST_STEP = 0.25  # seconds of prefill while no sequence decodes: new calls and cancellations wait this long


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """A sequence of the KV cache that is not in use."""

    id: int
    held: int  # tokens of a former prompt
    common: int  # of those, how many the new prompt begins with
    last_used: int  # the lower, the longer ago
    neighbours: int = 0  # slots beside it that are in use


def choose_slot(free: Seq[FreeSlot], *, copy_tokens: int, split_tokens: int) -> FreeSlot:
    """The free slot with the lowest cost in prompt tokens: of what is lost, copied and slowed down.

    1. What a slot holds beyond the new prompt's beginning is lost for later prompts. The longer it was not used,
       the less likely one needs it.
    2. A beginning that another slot holds is copied, or computed again: at most `copy_tokens`.
    3. Adjacent slots are computed in one graph. A slot away from all others adds a graph, which costs an answer
       `split_tokens`; a slot that closes a gap saves one.
    """
    oldest_first = sorted(free, key=lambda slot: slot.last_used)
    longest = max(slot.common for slot in free)

    def cost(age: int) -> float:
        slot = oldest_first[age]
        lost = (slot.held - slot.common) * RETURNS * (age + 1) / len(free)
        return lost + min(copy_tokens, longest - slot.common) + split_tokens * (1 - slot.neighbours)

    return oldest_first[min(range(len(free)), key=cost)]


@dataclass(frozen=True, slots=True)
class Wait:
    """Another sequence computes the beginning of this prompt: it will be copied."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Compute from this token on, after copying those before it from `source` if there is one."""

    tokens: int
    source: int | None = None


def begin_or_wait(own: int, match: Match, *, worth_copying: int) -> Begin | Wait:
    """How a prompt begins whose slot holds its first `own` tokens.

    1. If another sequence computes more of it, wait rather than compute it twice.
    2. If another slot holds more of it, copy that.
    3. Otherwise continue from what its own slot holds.

    `worth_copying`: the least number of tokens that take longer to compute than a slot's cache to copy.
    """
    if match.claimed - own >= worth_copying and match.claimed > match.held:
        return Wait()
    if match.held - own >= worth_copying:
        return Begin(match.held, source=min(match.holders))
    return Begin(own)


@dataclass(frozen=True, slots=True)
class PromptRest:
    """The rest of a prompt: the tokens of each slice that is not computed yet."""

    slices: Seq[int]
    waited: float  # seconds since it was submitted
    priority: int = 0  # the lower goes first

    @property
    def tokens(self) -> int:
        return sum(self.slices)


def plan_prefill(prefills: Mapping[int, PromptRest], seconds_per_token: float, budget: float) -> dict[int, list[int]]:
    """The slices that this step computes, by slot, most urgent first.

    The most urgent level comes first. Within it the shortest rest does, and every second of waiting counts like a
    second less to compute: a short prompt does not wait behind a long one, and a long one is not overtaken for ever.
    At least one slice is computed, and no more than `budget` seconds allow.
    """
    level = levels([Bid(prefill.priority, prefill.waited) for prefill in prefills.values()])
    in_turn = sorted(
        prefills, key=lambda slot: (level[prefills[slot].priority], _urgency(prefills[slot], seconds_per_token))
    )
    planned: dict[int, list[int]] = {}
    spent = 0.0
    for slot in in_turn:
        for tokens in prefills[slot].slices:
            spent += tokens * seconds_per_token
            if planned and spent > budget:
                return planned
            planned.setdefault(slot, []).append(tokens)
    return planned


def came_together(prefills: Mapping[int, PromptRest], seconds_per_token: float) -> bool:
    """Whether these prompts are a burst: several of one priority, none waiting for long, and soon computed."""
    if len({prefill.priority for prefill in prefills.values()}) != 1 or len(prefills) == 1:
        return False
    seconds = sum(prefill.tokens for prefill in prefills.values()) * seconds_per_token
    return max(seconds, *(prefill.waited for prefill in prefills.values())) <= BURST_SECONDS


def spread_prefill(prefills: Mapping[int, PromptRest], seconds_per_token: float, budget: float) -> dict[int, list[int]]:
    """The same share of every prompt, as large as `budget` seconds allow, at least a slice: all end together.

    This is fastest for a burst: its calls are large, and none of its streams starts early and is then delayed.
    """
    seconds = sum(prefill.tokens for prefill in prefills.values()) * seconds_per_token
    share = min(1.0, budget / seconds)
    return {slot: _first(prefill.slices, share * prefill.tokens) for slot, prefill in prefills.items()}


def _first(slices: Seq[int], tokens: float) -> list[int]:
    """The first slices, until they have so many tokens."""
    taken: list[int] = []
    left = tokens
    for each in slices:
        if taken and left <= 0:
            break
        taken.append(each)
        left -= each
    return taken


def _urgency(prefill: PromptRest, seconds_per_token: float) -> float:
    return prefill.tokens * seconds_per_token - prefill.waited


def prefill_budget(decode_seconds: float | None) -> float:
    """Seconds of prefill in a step.

    `decode_seconds`: of a step once the prompts have joined the streams, None if no sequence decodes. The streams
    will have this pace soon, so a burst of short prompts is computed at once, not between a lone stream's tokens.
    """
    return LONGEST_STEP if decode_seconds is None else STREAM_PAUSE * decode_seconds


def finer(slices: Seq[int]) -> list[int]:
    """The slices in units of UNIT tokens, so that a step's prefill fits its time exactly.

    A slice's last unit includes a rest: one token alone is computed by another kernel (see batch_invariance.py).
    """
    return [unit for tokens in slices for unit in _units(tokens)]


def _units(tokens: int) -> list[int]:
    count = max(1, tokens // UNIT)
    return [*[UNIT] * (count - 1), tokens - UNIT * (count - 1)]


def fits_in_cache(reserved: int, needed: int, capacity: int | None) -> bool:
    """Whether a sequence that needs so many tokens may start beside the reserved ones.

    `capacity`: of a unified cache; None if each slot has a cache of its own.
    """
    return capacity is None or reserved + needed <= capacity
