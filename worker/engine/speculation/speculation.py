"""Speculation: which draft tokens a step computes beside the streams' next ones. The model checks them."""

from collections.abc import Sequence

from worker.engine.speculation.acceptance_rates import AcceptanceRates
from worker.engine.speculation.draft_decision import choose_drafts
from worker.engine.speculation.drafting import DecodingText, Drafter, DraftRequest, Outlook
from worker.engine.speculation.guessed_text import Guess, GuessedText
from worker.engine.speculation.step_times import StepTimes

WEIGHT, MEMORY = 8.0, 400.0  # of the rates of all of a model's texts, in tokens
PROBED_STEPS = 64  # without a guess, after which a text is drafted for to find out whether that pays now
PROBED_TOKENS = 2


class Speculation:
    """Drafts for each sequence as many tokens as yield the most tokens a second; where none does, none."""

    def __init__(self, drafter: Drafter, most: int, times: StepTimes) -> None:
        """`most`: draft tokens of a sequence in a step."""
        self._drafter = drafter
        self._most = most
        self._times = times
        self._rates = AcceptanceRates(drafter.expected_rate, weight=WEIGHT, memory=MEMORY)
        self._guessed: dict[int, GuessedText] = {}  # by slot

    def drafts(self, decoding: Sequence[DecodingText]) -> dict[int, list[int]]:
        """Draft tokens to follow the sequences' pending tokens, by slot. Raises DecodeFailed."""
        texts = {each.slot: each for each in decoding if each.slot is not None}
        outlooks = {slot: found for slot in sorted(texts) if (found := self._outlook(slot, texts[slot])) is not None}
        if not outlooks:
            return {}
        counts = self._counts(texts, outlooks)
        return self._propose([DraftRequest(slot, texts[slot], count) for slot, count in counts.items()], outlooks)

    def forget(self, slot: int) -> None:
        """The slot's text has ended."""
        self._drafter.forget(slot)
        self._guessed.pop(slot, None)

    def _outlook(self, slot: int, text: DecodingText) -> Outlook | None:
        """What could be drafted now, after the latest guess is compared with what was written; None for nothing.

        Tokens that are known in advance are guessed whether they will be drafted or not, which costs nothing.
        """
        guessed = self._guessed.setdefault(slot, GuessedText(self._rates))
        guessed.settle(text)
        if (most := min(text.draft_room, self._most)) <= 0:
            return None
        found = self._drafter.outlook(slot, text, most)
        if found.tokens is None:
            return found
        allowed = text.allowed(found.tokens)
        guessed.expect(Guess(text.text_length, found.tokens[:allowed], found.evidence))
        return Outlook(found.evidence[:allowed], found.tokens[:allowed]) if allowed else None

    def _counts(self, texts: dict[int, DecodingText], outlooks: dict[int, Outlook]) -> dict[int, int]:
        """How many tokens are drafted, by slot, where any are."""
        slots = sorted(texts)
        chances = [self._guessed[slot].chances(outlooks[slot].evidence) if slot in outlooks else () for slot in slots]
        step_seconds = self._times.of(slots, [texts[slot].pending_length for slot in slots])
        chosen = dict(zip(slots, choose_drafts(chances, step_seconds, self._drafter.draft_seconds), strict=True))
        for slot, outlook in outlooks.items():
            if outlook.tokens is None and not chosen[slot] and self._guessed[slot].steps_since_guess >= PROBED_STEPS:
                chosen[slot] = min(PROBED_TOKENS, len(outlook.evidence))
        return {slot: count for slot, count in chosen.items() if count}

    def _propose(self, requests: Sequence[DraftRequest], outlooks: dict[int, Outlook]) -> dict[int, list[int]]:
        drafts: dict[int, list[int]] = {}
        if not requests:
            return drafts
        for request, tokens in zip(requests, self._drafter.propose(requests), strict=True):
            slot, text = request.slot, request.text
            if tokens is None:
                continue
            drafts[slot] = tokens[: text.allowed(tokens)]
            if outlooks[slot].tokens is None:
                # A drafter that offers fewer tokens than asked for has missed: that took its time too.
                offered = [*drafts[slot], None][: request.count]
                self._guessed[slot].expect(Guess(text.text_length, offered, outlooks[slot].evidence))
        return drafts
