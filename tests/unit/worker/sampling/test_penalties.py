"""Penalties and biases, compared with llama.cpp's own samplers value by value."""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp import llama_cpp as ll

from atelier.settings import Inference
from worker.engine.sampling.penalties import LogitBias, Penalties

SIZE = 32


def logits(seed: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return np.random.default_rng(seed).normal(0, 4, SIZE).astype(np.float32)


def through_llama(
    settings: Inference, tokens: list[int], values: "np.ndarray[tuple[int], np.dtype[np.float32]]"
) -> list[float]:
    """The logits after llama.cpp's penalty sampler."""
    sampler = ll.llama_sampler_init_penalties(
        SIZE,
        settings.repeat_last_n,
        settings.repeat_penalty,
        settings.frequency_penalty,
        settings.presence_penalty,
    )
    for token in tokens:
        ll.llama_sampler_accept(sampler, token)
    data = (ll.llama_token_data * SIZE)(*(ll.llama_token_data(i, float(v), 0.0) for i, v in enumerate(values)))
    array = ll.llama_token_data_array(data, SIZE, -1, False)
    ll.llama_sampler_apply(sampler, ctypes.byref(array))
    ll.llama_sampler_free(sampler)
    return [entry.logit for entry in data]


@given(
    seed=st.integers(0, 1000),
    tokens=st.lists(st.integers(0, SIZE - 1), max_size=40),
    window=st.integers(0, 20),
    repeat=st.sampled_from([1.0, 0.5, 1.1, 2.0]),
    frequency=st.sampled_from([0.0, 0.5, -1.0]),
    presence=st.sampled_from([0.0, 0.7, -2.0]),
)
def test_penalties_equal_llama_cpps(
    seed: int, tokens: list[int], window: int, repeat: float, frequency: float, presence: float
) -> None:
    settings = Inference(
        repeat_last_n=window, repeat_penalty=repeat, frequency_penalty=frequency, presence_penalty=presence
    )
    expected = through_llama(settings, tokens, logits(seed))
    ours, penalties = logits(seed), Penalties(settings)
    penalties.read(tokens[:10])
    for token in tokens[10:]:
        penalties.note(token)
    penalties.apply(ours)
    assert ours.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_bias_is_added_and_can_forbid() -> None:
    values = np.zeros(SIZE, dtype=np.float32)
    LogitBias({3: 2.5, 7: float("-inf")}).apply(values)
    assert values[3] == 2.5
    assert values[7] == -np.inf
    assert np.count_nonzero(values) == 2


def test_without_biases_nothing_changes() -> None:
    values = logits(1)
    LogitBias({}).apply(values)
    assert values.tolist() == logits(1).tolist()
