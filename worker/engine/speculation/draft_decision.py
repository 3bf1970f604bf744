"""How many draft tokens are worth computing: as many as give the most tokens a second. Pure."""

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heapreplace

MOST_ROWS = 64  # draft tokens of a step
LEAST_CHANCE = 0.1  # that a draft token and all before it are right
LEAST_GAIN = 1.05  # of tokens a second: less is within the error of what is measured


def choose_drafts(
    chances: Sequence[Sequence[float]],
    step_seconds: Callable[[Sequence[int]], float | None],
    draft_seconds: float = 0.0,
) -> list[int]:
    """How many draft tokens each stream gets.

    `chances`: for every stream that decodes, the probability of each token that could be drafted, if those before it
    are right. `step_seconds`: of a step with so many draft tokens for each stream; None while unknown.
    `draft_seconds`: to draft one more token, for all streams at once.

    Tokens are added in the order of their chance to be accepted; the best number of them wins, if it gains enough.
    """
    counts = [0] * len(chances)
    best = list(counts)
    heap = [(-own[0], stream) for stream, own in enumerate(chances) if own and own[0] >= LEAST_CHANCE]
    if not heap:
        return best
    plain = step_seconds(counts)
    if not plain:
        return best
    heapify(heap)
    expected = float(len(chances))  # tokens: every stream's next one, and the accepted ones
    most = LEAST_GAIN * expected / plain  # tokens a second that have to be exceeded
    for _ in range(MOST_ROWS):
        chance, stream = -heap[0][0], heap[0][1]
        counts[stream] += 1
        expected += chance
        seconds = (step_seconds(counts) or plain) + draft_seconds * max(counts)
        if expected / seconds > most:
            most, best = expected / seconds, list(counts)
        _replace_first(heap, chances[stream], counts[stream], chance)
        if not heap:
            break
    return best


def _replace_first(heap: list[tuple[float, int]], chances: Sequence[float], count: int, chance: float) -> None:
    """The heap's first stream continues with its next token, if that is likely enough."""
    if count < len(chances) and chance * chances[count] >= LEAST_CHANCE:
        heapreplace(heap, (-chance * chances[count], heap[0][1]))
    else:
        heappop(heap)
