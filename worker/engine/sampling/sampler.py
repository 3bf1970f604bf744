"""The next token of one sequence: biases and penalties, then llama.cpp's sampler chain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.settings.groups import Inference
from worker.engine.model.context import Context
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.sampling.candidates import MOST, Candidates
from worker.engine.sampling.dry import dry_enabled, dry_stage
from worker.engine.sampling.penalties import LogitBias, Penalties

SEEDS = 2**32 - 1  # 2**32 - 1 itself means "draw one" to llama.cpp
MIROSTAT_CANDIDATES = 100  # llama.cpp's own: the likeliest tokens that version 1 estimates from
# Less likely than this is as good as impossible; what a constraint forbids would make NaNs in some stages.
IMPOSSIBLE = 1e-30
LOWEST_TEMPERATURE = 1e-3  # but for 0: nearer to it, logits become infinite


class Sampler:
    """Owns a llama_sampler chain. `close` frees it.

    In llama.cpp's usual order: biases, penalties, DRY, filters, temperature, draw. At temperature 0 the
    likeliest token after the penalties and DRY is taken, whatever the filters, XTC and Mirostat are set to.
    """

    def __init__(self, settings: Inference, seed: int, vocabulary: Vocabulary) -> None:
        self._bias = LogitBias(_biases(settings, vocabulary))
        self._penalties = Penalties(settings)
        self._dry_window = settings.dry_penalty_last_n if dry_enabled(settings) else 0
        self._greedy = settings.temperature == 0 and not self._dry_window
        self._candidates = Candidates(settings.top_k) if _begins_with_top_k(settings) else None
        self._chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        for stage in _stages(settings, seed % SEEDS, vocabulary):
            ll.llama_sampler_chain_add(self._chain, stage)

    def read_prompt(self, tokens: Sequence[int]) -> None:
        """Let the penalties and DRY know the prompt's last tokens."""
        self._penalties.read(tokens)
        for token in tokens[max(0, len(tokens) - self._dry_window) :] if self._dry_window else ():
            ll.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context, index: int) -> int:
        """Draw a token from the logits of the batch's token `index`, and remember it for the penalties."""
        logits = context.logits(index)
        self._bias.apply(logits)
        self._penalties.apply(logits)
        token = self._draw(context, index, logits)
        self._penalties.note(token)
        return token

    def accept(self, token: int) -> None:
        """Remember a token that was decided elsewhere, for the penalties and DRY."""
        self._penalties.note(token)
        if self._dry_window:
            ll.llama_sampler_accept(self._chain, token)

    def _draw(self, context: Context, index: int, logits: NDArray[np.float32]) -> int:
        if self._greedy:
            return int(logits.argmax())
        if self._candidates and (token := self._candidates.draw(self._chain, logits)) is not None:
            return token
        return int(ll.llama_sampler_sample(self._chain, context.handle, index))

    def close(self) -> None:
        ll.llama_sampler_free(self._chain)


def _begins_with_top_k(settings: Inference) -> bool:
    """Whether top-k is the first stage to look at the candidates."""
    drawn = settings.temperature > 0 and not settings.mirostat
    return drawn and 0 < settings.top_k <= MOST // 16 and settings.top_n_sigma <= 0 and not dry_enabled(settings)


def _stages(settings: Inference, seed: int, vocabulary: Vocabulary) -> list[Any]:
    dry = [dry_stage(settings, vocabulary)] if dry_enabled(settings) else []
    if settings.temperature == 0:
        return [*dry, ll.llama_sampler_init_greedy()]
    if settings.mirostat:
        return [*dry, _temperature(settings), *_mirostat(settings, seed, vocabulary)]
    return [*dry, *_filters(settings, seed), _temperature(settings), ll.llama_sampler_init_dist(seed)]


def _filters(settings: Inference, seed: int) -> list[Any]:
    stages = []
    if settings.top_n_sigma > 0:
        stages.append(ll.llama_sampler_init_top_n_sigma(settings.top_n_sigma))
    if settings.top_k > 0:
        stages.append(ll.llama_sampler_init_top_k(settings.top_k))
    if settings.typical_p < 1:
        stages += [_drop_impossible(), ll.llama_sampler_init_typical(settings.typical_p, 1)]
    if settings.top_p < 1:
        stages.append(ll.llama_sampler_init_top_p(settings.top_p, 1))
    if settings.min_p > 0:
        stages.append(ll.llama_sampler_init_min_p(settings.min_p, 1))
    if settings.xtc_probability > 0:
        stages.append(ll.llama_sampler_init_xtc(settings.xtc_probability, settings.xtc_threshold, 1, seed))
    return stages


def _temperature(settings: Inference) -> Any:
    if settings.dynatemp_range == 0 or settings.mirostat:
        return ll.llama_sampler_init_temp(max(settings.temperature, LOWEST_TEMPERATURE))
    lowest = max(settings.temperature - settings.dynatemp_range, LOWEST_TEMPERATURE)
    highest = max(settings.temperature + settings.dynatemp_range, lowest)
    middle, reach = (highest + lowest) / 2, (highest - lowest) / 2
    return ll.llama_sampler_init_temp_ext(middle, reach, settings.dynatemp_exponent)


def _mirostat(settings: Inference, seed: int, vocabulary: Vocabulary) -> list[Any]:
    tau, eta = settings.mirostat_tau, settings.mirostat_eta
    if settings.mirostat == 1:
        version = ll.llama_sampler_init_mirostat(vocabulary.size, seed, tau, eta, MIROSTAT_CANDIDATES)
    else:
        version = ll.llama_sampler_init_mirostat_v2(seed, tau, eta)
    return [_drop_impossible(), version]


def _drop_impossible() -> Any:
    return ll.llama_sampler_init_min_p(IMPOSSIBLE, 1)


def _biases(settings: Inference, vocabulary: Vocabulary) -> dict[int, float]:
    biases = {token: bias for token, bias in settings.logit_bias.items() if token < vocabulary.size}
    forbidden = [*vocabulary.suppressed_tokens, *(vocabulary.end_tokens if settings.ignore_eos else ())]
    return biases | dict.fromkeys(forbidden, float("-inf"))
