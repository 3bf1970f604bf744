"""Scheduling: which slot a prompt gets, how it begins, and how much prefill a step computes. Pure."""

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import accumulate

from worker.engine.batching.fairness import Bid, levels
from worker.engine.cache.prefix_tree import Match

RETURNS = 0.5  # the share of conversations that continue before their slot is reused
UNIT = 2  # tokens; late in a long context each takes as long as a decode step
BURST_CALLS = 2  # most calls of a burst, whose prompts are computed side by side
BURST_SHARE = 0.1  # of the time that a burst takes to compute: its prompts arrived within this
BURST_SECONDS = 0.05  # the same for prompts that are computed in no time


@dataclass(frozen=True, slots=True)
class Patience:
    """How long prompts wait for others: a share of the time that they take to compute, and seconds at most."""

    share: float
    most: float

    def seconds(self, computing: float) -> float:
        return min(self.share * computing, self.most)


LONE = Patience(0.02, 0.03)  # of one prompt, for a second one
FOLLOWED = Patience(0.05, 0.03)  # of several, for a further one
EXPECTANT = Patience(0.5, 0.05)  # of all, while others are prepared
LONGEST = Patience(0.05, 0.2)  # of all, if that is longer


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
    """These slots compute the first tokens of this prompt: they will be copied. No slots: they come from the disk."""

    tokens: int = 0
    slots: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Begin:
    """Compute from this token on, after copying those before it from `source` if there is one."""

    tokens: int
    source: int | None = None


def begin_or_wait(own: int, match: Match, *, worth_copying: int, worth_waiting: int) -> Begin | Wait:
    """How a prompt begins whose slot holds its first `own` tokens.

    1. If another sequence computes more of it, wait rather than compute it twice.
    2. If another slot holds more of it, copy that.
    3. Otherwise continue from what its own slot holds.

    `worth_copying`: the least number of tokens that take longer to compute than a slot's cache to copy.
    `worth_waiting`: the same of tokens that are computed in a call of their own before.
    """
    can_copy = match.held - own >= worth_copying
    if match.claimed - own >= worth_copying and match.claimed - (match.held if can_copy else own) >= worth_waiting:
        return Wait(match.claimed, match.claimers)
    return Begin(match.held, source=min(match.holders)) if can_copy else Begin(own)


@dataclass(frozen=True, slots=True)
class PromptRest:
    """The rest of a prompt: the tokens of each slice that is not computed yet."""

    slices: Seq[int]
    waited: float  # seconds since it was submitted
    priority: int = 0  # the lower goes first

    @property
    def tokens(self) -> int:
        return sum(self.slices)


def until_awaited(slices: Seq[int], done: int, awaited: Iterable[int]) -> Seq[int]:
    """The slices after `done` tokens of a prompt, up to where others that wait for its beginning can continue from it.

    So those are computed side by side with its rest. `awaited`: how many tokens each of the others waits for; one that
    waits for all of it changes nothing.
    """
    total = done + sum(slices)
    if not (places := [place for place in awaited if done < place < total]):
        return slices
    ends = accumulate(slices, initial=done)
    return [tokens for tokens, start in zip(slices, ends, strict=False) if start < max(places)]


def plan_prefill(prefills: Mapping[int, PromptRest], seconds_per_token: float, rows: int) -> dict[int, list[int]]:
    """The slices that this step computes, by slot: of the most urgent prompt, and of others whose whole rest fits too.

    The most urgent level comes first. Within it the shortest rest does, and every second of waiting counts like a
    second less to compute: a short prompt does not wait behind a long one, and a long one is not overtaken for ever.
    At least one slice is computed, and no more than `rows` tokens allow.
    """
    level = levels([Bid(prefill.priority, prefill.waited) for prefill in prefills.values()])
    first, *others = sorted(
        prefills, key=lambda slot: (level[prefills[slot].priority], _urgency(prefills[slot], seconds_per_token))
    )
    planned = {first: _within(prefills[first].slices, rows)}
    left = rows - sum(planned[first])
    for slot in others:
        if prefills[slot].tokens > left:
            break
        planned[slot] = list(prefills[slot].slices)
        left -= prefills[slot].tokens
    return planned


def came_together(prefills: Mapping[int, PromptRest], seconds_per_token: float, rows: int) -> bool:
    """Whether these prompts are a burst: several of one priority, submitted at about the same time, and not long.

    `rows`: tokens of a call.
    """
    if len({prefill.priority for prefill in prefills.values()}) != 1 or len(prefills) == 1:
        return False
    tokens = sum(prefill.tokens for prefill in prefills.values())
    waits = [prefill.waited for prefill in prefills.values()]
    return (
        tokens <= BURST_CALLS * rows
        and max(waits) - min(waits) <= BURST_SECONDS + BURST_SHARE * tokens * seconds_per_token
    )


def spread_prefill(prefills: Mapping[int, PromptRest], rows: int) -> dict[int, list[int]]:
    """As many tokens of every prompt, at least a slice, and `rows` of all together: they end together.

    This is fastest for a burst: none of its streams starts early and is then delayed, and llama.cpp computes equally
    many tokens of neighbouring slots at once.
    """
    share = rows // len(prefills)
    return {slot: _within(prefill.slices, share) for slot, prefill in prefills.items()}


def gathering_seconds(seconds: float, count: int, oldest: float, newest: float, *, expected: bool) -> float:
    """How long prompts still wait, where nothing else runs, for others that arrive with them.

    Once they are computed they are streams, beside which others are computed more slowly.

    `seconds`: that these, `count` of them, take to compute. `oldest`: seconds since the first one was submitted.
    `newest`: since the last one was ready. `expected`: others have been submitted, and are not ready yet.
    """
    left = max(LONGEST.seconds(seconds), EXPECTANT.seconds(seconds)) - oldest
    quiet = FOLLOWED if count > 1 else LONE
    return left if expected else min(left, quiet.seconds(seconds) - newest)


def _within(slices: Seq[int], rows: int) -> list[int]:
    """The first slices, as many as have no more tokens than `rows` together; at least one."""
    ends = accumulate(slices)
    return list(slices[: max(1, sum(end <= rows for end in ends))])


def _urgency(prefill: PromptRest, seconds_per_token: float) -> float:
    return prefill.tokens * seconds_per_token - prefill.waited


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
