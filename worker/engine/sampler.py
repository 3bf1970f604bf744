"""llama.cpp's sampler chain, one per sequence, built from the request's settings."""

import ctypes
from collections.abc import Sequence
from typing import Any

from llama_cpp import llama_cpp as ll

from atelier.settings.groups import Inference
from worker.engine.vocabulary import Vocabulary

SEEDS = 2**32 - 1  # 2**32 - 1 itself means "draw one" to llama.cpp


class Sampler:
    """Owns a llama_sampler chain. `close` frees it."""

    def __init__(self, settings: Inference, seed: int, vocabulary: Vocabulary) -> None:
        """The chain in llama.cpp's usual order: biases, penalties, filters, temperature, draw."""
        self._chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        self._penalized = settings.repeat_last_n if _penalizes(settings) else 0
        for stage in _stages(settings, seed, vocabulary):
            ll.llama_sampler_chain_add(self._chain, stage)

    def read_prompt(self, tokens: Sequence[int]) -> None:
        """Let the penalties know the prompt's last tokens."""
        for token in tokens[max(0, len(tokens) - self._penalized) :] if self._penalized else ():
            ll.llama_sampler_accept(self._chain, token)

    def sample(self, context: Any, index: int) -> int:
        """Draw a token from the logits of the batch's token `index`, and remember it for the penalties."""
        return int(ll.llama_sampler_sample(self._chain, context, index))

    def close(self) -> None:
        ll.llama_sampler_free(self._chain)


def _stages(settings: Inference, seed: int, vocabulary: Vocabulary) -> list[Any]:
    stages = []
    if bias := _biases(settings, vocabulary):
        array = (ll.llama_logit_bias * len(bias))(*(ll.llama_logit_bias(t, b) for t, b in bias.items()))
        stages.append(ll.llama_sampler_init_logit_bias(vocabulary.size, len(bias), array))
    if _penalizes(settings):
        stages.append(
            ll.llama_sampler_init_penalties(
                vocabulary.size,
                settings.repeat_last_n,
                settings.repeat_penalty,
                settings.frequency_penalty,
                settings.presence_penalty,
            )
        )
    if settings.temperature == 0:
        return [*stages, ll.llama_sampler_init_greedy()]
    if settings.top_k > 0:
        stages.append(ll.llama_sampler_init_top_k(settings.top_k))
    if settings.top_p < 1:
        stages.append(ll.llama_sampler_init_top_p(settings.top_p, 1))
    if settings.min_p > 0:
        stages.append(ll.llama_sampler_init_min_p(settings.min_p, 1))
    return [*stages, ll.llama_sampler_init_temp(settings.temperature), ll.llama_sampler_init_dist(seed % SEEDS)]


def _penalizes(settings: Inference) -> bool:
    neutral = (1.0, 0.0, 0.0)
    given = (settings.repeat_penalty, settings.frequency_penalty, settings.presence_penalty)
    return settings.repeat_last_n > 0 and given != neutral


def _biases(settings: Inference, vocabulary: Vocabulary) -> dict[int, float]:
    never = ctypes.c_float(float("-inf")).value
    biases = dict(settings.logit_bias)
    biases |= dict.fromkeys(vocabulary.suppressed_tokens, never)
    if settings.ignore_eos:
        biases |= dict.fromkeys(vocabulary.end_tokens, never)
    return biases
