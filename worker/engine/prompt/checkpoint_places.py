"""Where a prompt's checkpoints are: places that later prompts are likely to share with it, and to leave it at.

    <system> ... |<user> ... <assistant> ... |<user> ... |<assistant>
     shared by conversations    another question^   the same question again, or an answer without its reasoning^

A text without messages, or a long one, has some at growing distances from its end.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

SPACING = 16  # tokens: what lies between closer places is as quickly computed again
APART = 64  # tokens that a prompt computes at once where it continues another: each place ends a call
FAR = 512  # tokens: the first distance from the end where nothing else is; each further one is twice as far


def checkpoint_places(
    prompt: Sequence[int], ends: Sequence[int], is_border: Callable[[int], bool], most: int
) -> list[int]:
    """Lengths of the prompt, ascending, at most `most`.

    `ends`: the lengths to choose from, ascending. `is_border`: recognises control tokens, which chat templates put
    around messages.
    """
    if not most:
        return []
    starts = _message_starts(prompt, ends, is_border)
    last = [end for end in ends[-1:] if not starts or end - starts[-1] >= SPACING]
    likely = [*last, *starts[:-3:-1], *starts[:1], *_distant(ends, starts)]
    return sorted(list(dict.fromkeys(likely))[:most])


def places_after(places: Sequence[int], begun: int) -> list[int]:
    """The places of a prompt whose first `begun` tokens are there: without those that would end a short call.

    Of the last one many prompts make use: the next turn, whose answer is often not repeated word for word.
    """
    kept: list[int] = []
    for place in places:
        least = SPACING if place == places[-1] else APART
        before = kept[-1] if kept else begun
        if place > begun and (not begun or place - before >= least):
            kept.append(place)
    return kept


def _message_starts(prompt: Sequence[int], ends: Sequence[int], is_border: Callable[[int], bool]) -> list[int]:
    """The last places before messages. Of close ones only the last: a message's end and the next one's start."""
    found: list[int] = []
    for at, token in enumerate(prompt):
        if token >= 0 and is_border(token) and (start := _last(ends, at)):
            if found and start - found[-1] < SPACING:
                found.pop()
            found.append(start)
    return found


def _distant(ends: Sequence[int], starts: Sequence[int]) -> list[int]:
    """Places at growing distances from the end: before a message where one starts in that part of the text."""
    found = []
    near, distance = (ends[-1] if ends else 0), FAR
    while ends and ends[-1] > distance:
        far = ends[-1] - distance
        start = _last(starts, far)
        place = start if start > far - distance // 2 else _last(ends, far)
        if place and near - place >= SPACING:
            found.append(place)
            near = place
        distance *= 2
    return found


def _last(places: Sequence[int], most: int) -> int:
    """The last place that is at most this, or 0."""
    return places[before - 1] if (before := bisect_right(places, most)) else 0
