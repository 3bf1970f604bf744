"""A small model that guesses ahead for a larger one with the same vocabulary."""

from collections.abc import Callable
from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from atelier.errors import AtelierError
from worker.engine.batching.batch_plan import Run
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs
from worker.engine.speculation.drafting import Wish

LEAST_PROBABILITY = 0.75  # of a guess, to the draft model: less likely ones rarely earn the row that checks them
READING_PAUSE = 1.0  # most reading of texts in a step, in the larger model's decode steps
LEAST_READ = 32  # tokens of a step; what every guessing sequence needs to go on from its last guesses
WORTH_MEASURING = 16  # tokens: the time of a call with fewer says little of a token's


class DraftModel:
    """Follows the texts of the larger model's slots in slots of its own, all of them in one call.

    A slot's cache holds a beginning of its text, and after it guesses, which are cut off where the text
    went another way. A text is read when the first guesses are wanted, some of it in each step, so that
    the streams go on meanwhile. What a slot holds is gone on from by its next text where that begins so.
    """

    def __init__(
        self,
        context: Context,
        slots: int,
        vocabulary: int,
        is_end: Callable[[int], bool],
        costs: Costs,
        *,
        room: int,
        keep: bool,
    ) -> None:
        """`vocabulary`: how many tokens it shares with the larger model. `is_end`: tokens that end a text.

        `costs`: the larger model's. `room`: most tokens of a call. `keep`: what a slot holds when its text ends.
        """
        self._context = context
        self._vocabulary = vocabulary
        self._is_end = is_end
        self._costs = costs
        self._own_costs = Costs(copy_seconds=0.0)
        self._room = room
        self._keep = keep
        self._held: list[list[int]] = [[] for _ in range(slots)]  # the tokens in the cache
        self._confirmed = [0] * slots  # how many of them are known to be the text's

    def propose(self, wishes: Seq[Wish]) -> list[list[int]]:
        try:
            guesses = self._guess(sorted(wishes, key=lambda wish: wish.slot))
        except AtelierError:
            for wish in wishes:  # what their caches hold is unknown
                self._clear(wish.slot)
            raise
        return [guesses[wish.slot] for wish in wishes]

    def forget(self, slot: int) -> None:
        self._confirmed[slot] = 0
        if not self._keep:
            self._clear(slot)

    def _guess(self, wishes: Seq[Wish]) -> dict[int, list[int]]:
        """One call for each further token, for all that are still sure of it."""
        guesses: dict[int, list[int]] = {wish.slot: [] for wish in wishes}
        wanted = {wish.slot: wish.count for wish in wishes}
        runs = self._reading(wishes)
        while runs:
            self._decode(runs)
            found = self._likeliest(runs)
            for slot, token in found.items():
                guesses[slot].append(token)
            runs = [
                Run(slot, [token], len(self._held[slot]), 0)
                for slot, token in found.items()
                if len(guesses[slot]) < wanted[slot]
            ]
        return guesses

    def _reading(self, wishes: Seq[Wish]) -> list[Run]:
        """What of the texts is to be read in this step. Who reads to the end of a text needs logits there."""
        unread = [self._follow(wish) for wish in wishes]
        counts = plan_reading([len(tokens) for tokens in unread], self._most_read(len(wishes)))
        runs = []
        for wish, tokens, count in zip(wishes, unread, counts, strict=True):
            silent = count - 1 if count == len(tokens) else count
            runs.append(Run(wish.slot, tokens[:count], self._confirmed[wish.slot], silent))
            self._confirmed[wish.slot] += count
        return [run for run in runs if len(run)]

    def _follow(self, wish: Wish) -> list[int]:
        """Cut the slot's cache to what is the text's; the tokens of the text that come after it, at least one."""
        slot, confirmed = wish.slot, self._confirmed[wish.slot]
        held, text = self._held[slot], wish.text.text_from(confirmed)
        common = min(common_length(held[confirmed:], text), len(text) - 1)
        if confirmed + common < len(held):
            self._context.keep_prefix(slot, confirmed + common)
            del held[confirmed + common :]
        self._confirmed[slot] += common
        return text[common:]

    def _most_read(self, streams: int) -> int:
        """Tokens of a step."""
        pause = READING_PAUSE * (self._costs.decode_seconds(streams) or 0.0)
        return min(self._room, max(LEAST_READ, int(pause / self._own_costs.token_seconds)))

    def _decode(self, runs: Seq[Run]) -> None:
        tokens = sum(map(len, runs))
        if tokens >= WORTH_MEASURING:
            with self._own_costs.call(0, tokens):
                self._context.decode_runs(runs)
        else:
            self._context.decode_runs(runs)
        for run in runs:
            self._held[run.slot].extend(run.tokens)

    def _likeliest(self, runs: Seq[Run]) -> dict[int, int]:
        """What the last call finds to come next, by slot, where it is sure and the text goes on."""
        found = {}
        end = 0
        for run in runs:
            end += len(run)
            if run.silent == len(run):
                continue
            token = sure_token(self._context.logits(end - 1)[: self._vocabulary])
            if token is not None and not self._is_end(token):
                found[run.slot] = token
        return found

    def _clear(self, slot: int) -> None:
        self._context.keep_prefix(slot, 0)
        self._held[slot] = []
        self._confirmed[slot] = 0


def plan_reading(unread: Seq[int], budget: int) -> list[int]:
    """How many tokens of each text are read in a step of at most `budget` tokens: the shortest rest goes first."""
    counts = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: unread[i]):
        counts[index] = min(unread[index], budget)
        budget -= counts[index]
    return counts


def common_length(first: Seq[int], second: Seq[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def sure_token(logits: NDArray[np.float32]) -> int | None:
    """The likeliest token, if its probability is at least LEAST_PROBABILITY."""
    token = int(np.argmax(logits))
    probability = 1 / float(np.exp(logits - logits[token]).sum())
    return token if probability >= LEAST_PROBABILITY else None
