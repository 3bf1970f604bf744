"""How well a text's next tokens are guessed: every guess is compared with what the model then writes."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.engine.speculation.acceptance_rates import AcceptanceRates, Evidence
from worker.engine.speculation.drafting import GrowingText

WEIGHT, MEMORY = 6.0, 40.0  # of the text's own rates, in tokens


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that were expected from number `start` of the text on, drafted or not. None: it had no further one."""

    start: int
    tokens: Sequence[int | None]
    evidence: Sequence[Evidence]


class GuessedText:
    """One text's rates. They start from the model's, to which they add."""

    def __init__(self, of_model: AcceptanceRates) -> None:
        self._of_model = of_model
        self._rates = AcceptanceRates(of_model.rate, weight=WEIGHT, memory=MEMORY)
        self._guess: Guess | None = None
        self.steps_since_guess = 0

    def chances(self, evidence: Sequence[Evidence]) -> list[float]:
        """The probability of each token, if those before it are right."""
        return [self._rates.rate(each) for each in evidence]

    def expect(self, guess: Guess) -> None:
        self._guess = guess
        self.steps_since_guess = 0

    def settle(self, text: GrowingText) -> None:
        """Compare the latest guess with the text: all its tokens up to the first wrong one."""
        self.steps_since_guess += 1
        if (guess := self._guess) is None:
            return
        self._guess = None
        written = text.text_from(guess.start)
        for token, evidence, actual in zip(guess.tokens, guess.evidence, written, strict=False):
            self._rates.add(evidence, right=token == actual)
            self._of_model.add(evidence, right=token == actual)
            if token != actual:
                return
