"""A draft model: a small model that proposes tokens to a larger one with the same vocabulary."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atelier.errors import AtelierError, LoadFailed
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Average, Costs
from worker.engine.model.decode_run import Run
from worker.engine.speculation.acceptance_rates import Evidence
from worker.engine.speculation.drafting import DecodingText, DraftRequest, Outlook

LEAST_PROBABILITY = 0.75  # of a draft token, to the draft model: less likely ones rarely earn the row that checks them
READING_PAUSE = 1.0  # most prefill of texts in a step, in the larger model's decode steps
EXPECTED_RATE = 0.6  # of tokens that are drafted and right, before it is measured
EVIDENCE = "draft model"
LEAST_READ = 32  # tokens of a step: what every drafting sequence needs to continue from its last draft
WORTH_MEASURING = 16  # tokens: the time of a call with fewer says little about a token's
MOST_DIFFERENCE = 128  # tokens; makers pad vocabularies to round numbers (llama.cpp, common/speculative.cpp)
FIRST_COMPARED = 5  # the special tokens before it may differ in their text (common/speculative.cpp)


class DraftModel:
    """Follows the texts of the larger model's slots in slots of its own, all of them in one call.

    A slot's cache holds the beginning of its text and, after it, draft tokens, which are cut off where the text
    took another course. A text is read when its first draft is requested, part of it in each step, so that the
    streams continue meanwhile. The next text of a slot reuses what the slot holds of it.
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
        """`vocabulary`: how many tokens it shares with the larger model. `is_end`: tells tokens that end a text.

        `costs`: the larger model's. `room`: most tokens of a call. `keep`: a slot keeps its cache when its text ends.
        """
        self._context = context
        self._vocabulary = vocabulary
        self._is_end = is_end
        self._costs = costs
        self._own_costs = Costs(copy_seconds=0.0)
        self._draft_seconds = Average()
        self._room = room
        self._keep = keep
        self._held: list[list[int]] = [[] for _ in range(slots)]  # the tokens in the cache
        self._confirmed = [0] * slots  # how many of them are known to be the text's

    @property
    def draft_seconds(self) -> float:
        return self._draft_seconds.value or 0.0

    def expected_rate(self, evidence: Evidence) -> float:
        return EXPECTED_RATE

    def outlook(self, slot: int, text: DecodingText, most: int) -> Outlook:
        return Outlook([EVIDENCE] * most)

    def propose(self, requests: Sequence[DraftRequest]) -> list[list[int] | None]:
        try:
            drafts = self._draft(sorted(requests, key=lambda request: request.slot))
        except AtelierError:
            for request in requests:  # after a failed call the contents of their caches are unknown
                self._clear(request.slot)
            raise
        return [drafts[request.slot] if self._has_read(request) else None for request in requests]

    def _has_read(self, request: DraftRequest) -> bool:
        """Whether its cache holds the whole text."""
        return self._confirmed[request.slot] == request.text.text_length

    def forget(self, slot: int) -> None:
        self._confirmed[slot] = 0
        if not self._keep:
            self._clear(slot)

    def _draft(self, requests: Sequence[DraftRequest]) -> dict[int, list[int]]:
        """One call for each further token, for all slots whose next token is likely enough."""
        drafts: dict[int, list[int]] = {request.slot: [] for request in requests}
        wanted = {request.slot: request.count for request in requests}
        runs = self._reading(requests)
        while runs:
            self._decode(runs)
            found = self._likeliest(runs)
            for slot, token in found.items():
                drafts[slot].append(token)
            runs = [
                Run(slot, [token], len(self._held[slot]), 0)
                for slot, token in found.items()
                if len(drafts[slot]) < wanted[slot]
            ]
        return drafts

    def _reading(self, requests: Sequence[DraftRequest]) -> list[Run]:
        """What this step reads of the texts. Where a text is read to its end, the last token's logits are needed."""
        unread = [self._follow(request) for request in requests]
        counts = plan_reading([len(tokens) for tokens in unread], self._most_read(len(requests)))
        runs = []
        for request, tokens, count in zip(requests, unread, counts, strict=True):
            silent = count - 1 if count == len(tokens) else count
            runs.append(Run(request.slot, tokens[:count], self._confirmed[request.slot], silent))
            self._confirmed[request.slot] += count
        return [run for run in runs if len(run)]

    def _follow(self, request: DraftRequest) -> list[int]:
        """Cut the slot's cache to the tokens of its text; the text's tokens after those, at least one."""
        slot, confirmed = request.slot, self._confirmed[request.slot]
        held, text = self._held[slot], request.text.text_from(confirmed)
        common = min(common_length(held[confirmed:], text), len(text) - 1)
        if confirmed + common < len(held):
            self._context.keep_prefix(slot, confirmed + common)
            del held[confirmed + common :]
        self._confirmed[slot] += common
        return text[common:]

    def _most_read(self, streams: int) -> int:
        """Tokens of a step's prefill."""
        pause = READING_PAUSE * (self._costs.decode_seconds(streams) or 0.0)
        return min(self._room, max(LEAST_READ, int(pause / self._own_costs.token_seconds)))

    def _decode(self, runs: Sequence[Run]) -> None:
        tokens = sum(map(len, runs))
        started = time.perf_counter()
        if tokens >= WORTH_MEASURING:
            with self._own_costs.call(0, tokens):
                self._context.decode_runs(runs)
        else:
            self._context.decode_runs(runs)
        if tokens == len(runs):
            self._draft_seconds.add(time.perf_counter() - started)
        for run in runs:
            self._held[run.slot].extend(run.tokens)

    def _likeliest(self, runs: Sequence[Run]) -> dict[int, int]:
        """The likeliest next token by slot, where it is likely enough and does not end the text."""
        found = {}
        end = 0
        for run in runs:
            end += len(run)
            if run.silent == len(run):
                continue
            token = confident_token(self._context.logits(end - 1)[: self._vocabulary])
            if token is not None and not self._is_end(token):
                found[run.slot] = token
        return found

    def _clear(self, slot: int) -> None:
        self._context.keep_prefix(slot, 0)
        self._held[slot] = []
        self._confirmed[slot] = 0


def plan_reading(unread: Sequence[int], budget: int) -> list[int]:
    """How many tokens of each text are read in a step of at most `budget` tokens: the shortest rest goes first."""
    counts = [0] * len(unread)
    for index in sorted(range(len(unread)), key=lambda i: unread[i]):
        counts[index] = min(unread[index], budget)
        budget -= counts[index]
    return counts


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def confident_token(logits: NDArray[np.float32]) -> int | None:
    """The likeliest token, if its probability is at least LEAST_PROBABILITY."""
    token = int(np.argmax(logits))
    probability = 1 / float(np.exp(logits - logits[token]).sum())
    return token if probability >= LEAST_PROBABILITY else None


class ComparedVocabulary(Protocol):
    """The part of a vocabulary that is compared."""

    size: int

    @property
    def kind(self) -> int: ...

    @property
    def borders(self) -> tuple[int | None, int | None]: ...

    def text(self, token: int) -> bytes: ...


def shared_size(main: ComparedVocabulary, draft: ComparedVocabulary) -> int:
    """How many tokens both models share, from the first on. Raises LoadFailed when ids mean different tokens."""
    if (difference := _difference(main, draft)) is not None:
        raise LoadFailed(
            f"The draft model does not match this model: {difference}. "
            "Name a smaller model of the same family as draft_model, or none."
        )
    return min(main.size, draft.size)


def _difference(main: ComparedVocabulary, draft: ComparedVocabulary) -> str | None:
    if main.kind != draft.kind:
        return "their vocabularies are of different types"
    if abs(main.size - draft.size) > MOST_DIFFERENCE:
        return f"its vocabulary has {draft.size} tokens, and this model's {main.size}"
    if main.borders != draft.borders:
        return "it begins or ends its texts with another token"
    for token in range(FIRST_COMPARED, min(main.size, draft.size)):
        if main.text(token) != draft.text(token):
            return (
                f"token {token} means {_shown(draft.text(token))} to it, and {_shown(main.text(token))} to this model"
            )
    return None


def _shown(text: bytes) -> str:
    return f'"{text[:40].decode(errors="replace")}"'
