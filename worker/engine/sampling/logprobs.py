"""Log-probabilities of tokens in the model's own distribution."""

import numpy as np
from numpy.typing import NDArray


def token_logprobs(logits: NDArray[np.float32], token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The token's log-probability, and the `top` likeliest tokens with theirs; the lower id first among equals.

    `logits`: [vocabulary]. Natural logarithms, computed in 64 bits.
    """
    wide = logits.astype(np.float64)
    highest = wide.max()
    total = highest + np.log(np.exp(wide - highest).sum())
    likeliest = _likeliest(wide, top)
    return float(wide[token] - total), [(int(each), float(wide[each] - total)) for each in likeliest]


def _likeliest(logits: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    if not count:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= threshold)
    return candidates[np.lexsort((candidates, -logits[candidates]))][:count]
