"""The next token of one sequence: biases and penalties, then llama.cpp's sampler chain."""

from collections.abc import Sequence
from typing import Any

from llama_cpp import llama_cpp as ll

from atelier.settings.groups import Inference
from worker.engine.context import Context
from worker.engine.penalties import LogitBias, Penalties
from worker.engine.vocabulary import Vocabulary

SEEDS = 2**32 - 1  # 2**32 - 1 itself means "draw one" to llama.cpp


class Sampler:
    """Owns a llama_sampler chain. `close` frees it."""

    def __init__(self, settings: Inference, seed: int, vocabulary: Vocabulary) -> None:
        """In llama.cpp's usual order: biases, penalties, filters, temperature, draw."""
        self._bias = LogitBias(_biases(settings, vocabulary))
        self._penalties = Penalties(settings)
        self._chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        for stage in _stages(settings, seed):
            ll.llama_sampler_chain_add(self._chain, stage)

    def read_prompt(self, tokens: Sequence[int]) -> None:
        """Let the penalties know the prompt's last tokens."""
        self._penalties.read(tokens)

    def sample(self, context: Context, index: int) -> int:
        """Draw a token from the logits of the batch's token `index`, and remember it for the penalties."""
        logits = context.logits(index)
        self._bias.apply(logits)
        self._penalties.apply(logits)
        token = int(ll.llama_sampler_sample(self._chain, context.handle, index))
        self._penalties.note(token)
        return token

    def close(self) -> None:
        ll.llama_sampler_free(self._chain)


def _stages(settings: Inference, seed: int) -> list[Any]:
    if settings.temperature == 0:
        return [ll.llama_sampler_init_greedy()]
    stages = []
    if settings.top_k > 0:
        stages.append(ll.llama_sampler_init_top_k(settings.top_k))
    if settings.top_p < 1:
        stages.append(ll.llama_sampler_init_top_p(settings.top_p, 1))
    if settings.min_p > 0:
        stages.append(ll.llama_sampler_init_min_p(settings.min_p, 1))
    return [*stages, ll.llama_sampler_init_temp(settings.temperature), ll.llama_sampler_init_dist(seed % SEEDS)]


def _biases(settings: Inference, vocabulary: Vocabulary) -> dict[int, float]:
    biases = {token: bias for token, bias in settings.logit_bias.items() if token < vocabulary.size}
    forbidden = [*vocabulary.suppressed_tokens, *(vocabulary.end_tokens if settings.ignore_eos else ())]
    return biases | dict.fromkeys(forbidden, float("-inf"))
