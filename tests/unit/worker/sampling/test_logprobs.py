"""Log-probabilities, compared with an explicit softmax."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.sampling.logprobs import token_logprobs


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    logits = np.array([1.0, 2.0, 3.0, -np.inf], dtype=np.float32)
    logprob, top = token_logprobs(logits, 0, 4)
    total = sum(math.exp(value) for value in (1.0, 2.0, 3.0))
    assert math.isclose(logprob, math.log(math.exp(1.0) / total))
    assert [token for token, _ in top] == [2, 1, 0, 3]
    assert math.isclose(sum(math.exp(value) for _, value in top), 1)


def test_equal_probabilities_are_sorted_by_token_id() -> None:
    logits = np.array([1, 5, 5, 1, 5], dtype=np.float32)
    assert [token for token, _ in token_logprobs(logits, 0, 2)[1]] == [1, 2]
    assert [token for token, _ in token_logprobs(logits, 0, 4)[1]] == [1, 2, 4, 0]


def test_no_alternatives_are_listed_unless_requested() -> None:
    assert token_logprobs(np.zeros(4, dtype=np.float32), 1, 0) == (-math.log(4), [])


@given(values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50), top=st.integers(0, 50))
def test_the_likeliest_come_first_whatever_the_logits(values: list[float], top: int) -> None:
    top = min(top, len(values))
    logprob, listed = token_logprobs(np.array(values, dtype=np.float32), 0, top)
    assert [token for token, _ in listed] == sorted(range(len(values)), key=lambda i: (-values[i], i))[:top]
    assert logprob <= 1e-9
