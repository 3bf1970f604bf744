"""Sampling from a few candidates, compared with llama.cpp's sampling over the whole vocabulary."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from worker.engine.sampling.sampler import Candidates

SIZE = 8192
TOP_K = 40
DRAWS = 8

Logits = NDArray[np.float32]


@pytest.fixture
def chains() -> Iterator[Any]:
    """Makes the chain of a request with the given seed."""
    made = []

    def chain(seed: int, min_p: float = 0.05) -> Any:
        made.append(ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params()))
        stages = (
            ll.llama_sampler_init_top_k(TOP_K),
            ll.llama_sampler_init_top_p(0.95, 1),
            ll.llama_sampler_init_min_p(min_p, 1),
            ll.llama_sampler_init_temp(1.3),
            ll.llama_sampler_init_dist(seed),
        )
        for stage in stages:
            ll.llama_sampler_chain_add(made[-1], stage)
        return made[-1]

    yield chain
    for each in made:
        ll.llama_sampler_free(each)


def plain(chain: Any, logits: Logits) -> int:
    entries = np.zeros(SIZE, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    entries["id"], entries["logit"] = np.arange(SIZE), logits
    data = ctypes.cast(entries.ctypes.data, ll.llama_token_data_p)
    array = ll.llama_token_data_array(data, SIZE, -1, False)
    ll.llama_sampler_apply(chain, ctypes.byref(array))
    return int(array.data[array.selected].id)


def noise(seed: int, spread: float) -> Logits:
    return np.random.default_rng(seed).normal(0, spread, SIZE).astype(np.float32)


@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_the_same_seed_draws_the_same_tokens(chains: Any, spread: float) -> None:
    drawn = 0
    for seed in range(20):
        few, all_of_them, candidates = chains(seed, 0.0), chains(seed, 0.0), Candidates(TOP_K)
        for step in range(DRAWS):
            logits = noise(100 * seed + step, spread)
            token = candidates.draw(few, logits)
            if token is None:
                token = plain(few, logits)
            else:
                drawn += 1
            assert token == plain(all_of_them, logits)
    assert drawn or spread == 0.5


def test_forbidden_tokens_are_excluded_from_the_candidates(chains: Any) -> None:
    for seed in range(40):
        logits = np.full(SIZE, -np.inf, dtype=np.float32)
        logits[[5, 900, 8000]] = [1.0, 1.5, -20.0]
        few, all_of_them = chains(seed), chains(seed)
        token = Candidates(TOP_K).draw(few, logits)
        assert token == plain(all_of_them, logits)
        assert token in (5, 900, 8000)


def test_too_many_candidates_are_sampled_by_llama_cpp(chains: Any) -> None:
    assert Candidates(TOP_K).draw(chains(1), np.zeros(SIZE, dtype=np.float32)) is None
    assert Candidates(TOP_K).draw(chains(1), np.full(SIZE, -np.inf, dtype=np.float32)) is None


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0, 12.0, 50.0])
def test_the_distance_adapts_to_the_spread_of_the_logits(chains: Any, spread: float) -> None:
    candidates, chain = Candidates(TOP_K), chains(1)
    outcomes = [candidates.draw(chain, noise(step, spread)) for step in range(60)]
    assert outcomes[30:].count(None) <= 2
