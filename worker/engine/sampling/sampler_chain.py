"""llama.cpp's sampler chain for a request's settings: filters, temperature, draw, in llama.cpp's usual order."""

import ctypes
import weakref
from functools import lru_cache

from llama_cpp import llama_cpp as ll

from atelier.settings.groups import Inference
from worker.engine.model.vocabulary import Vocabulary

Handle = object  # a ctypes pointer to a llama_sampler

SEEDS = 2**32 - 1  # llama.cpp takes 2**32 - 1 itself as a request for a random seed
MIROSTAT_CANDIDATES = 100  # llama.cpp's own value: the likeliest tokens from which version 1 estimates
# Tokens less likely than this are dropped before stages that would make NaNs of what a constraint forbids.
IMPOSSIBLE = 1e-30
LOWEST_TEMPERATURE = 1e-3  # above 0: closer to it, logits become infinite


def create_chain(settings: Inference, seed: int, vocabulary: Vocabulary) -> Handle:
    """A new chain, which its owner frees. At temperature 0 it takes the likeliest token that DRY leaves."""
    chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
    for stage in _stages(settings, seed % SEEDS, vocabulary):
        ll.llama_sampler_chain_add(chain, stage)
    return chain


def _stages(settings: Inference, seed: int, vocabulary: Vocabulary) -> list[Handle]:
    dry = [_dry(settings, vocabulary)] if dry_enabled(settings) else []
    if settings.temperature == 0:
        return [*dry, ll.llama_sampler_init_greedy()]
    if settings.mirostat:
        return [*dry, _temperature(settings), *_mirostat(settings, seed, vocabulary)]
    return [*dry, *_filters(settings, seed), _temperature(settings), ll.llama_sampler_init_dist(seed)]


def _filters(settings: Inference, seed: int) -> list[Handle]:
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


def _temperature(settings: Inference) -> Handle:
    if settings.dynatemp_range == 0 or settings.mirostat:
        return ll.llama_sampler_init_temp(max(settings.temperature, LOWEST_TEMPERATURE))
    lowest = max(settings.temperature - settings.dynatemp_range, LOWEST_TEMPERATURE)
    highest = max(settings.temperature + settings.dynatemp_range, lowest)
    middle, reach = (highest + lowest) / 2, (highest - lowest) / 2
    return ll.llama_sampler_init_temp_ext(middle, reach, settings.dynatemp_exponent)


def _mirostat(settings: Inference, seed: int, vocabulary: Vocabulary) -> list[Handle]:
    tau, eta = settings.mirostat_tau, settings.mirostat_eta
    if settings.mirostat == 1:
        version = ll.llama_sampler_init_mirostat(vocabulary.size, seed, tau, eta, MIROSTAT_CANDIDATES)
    else:
        version = ll.llama_sampler_init_mirostat_v2(seed, tau, eta)
    return [_drop_impossible(), version]


def _drop_impossible() -> Handle:
    return ll.llama_sampler_init_min_p(IMPOSSIBLE, 1)


def dry_enabled(settings: Inference) -> bool:
    """Whether DRY, which keeps a text from repeating sequences of tokens, takes part."""
    return settings.dry_multiplier > 0 and settings.dry_penalty_last_n > 0


def _dry(settings: Inference, vocabulary: Vocabulary) -> Handle:
    prototype = _dry_prototype(
        vocabulary,
        settings.dry_multiplier,
        settings.dry_base,
        settings.dry_allowed_length,
        settings.dry_penalty_last_n,
        tuple(settings.dry_sequence_breakers),
    )
    return ll.llama_sampler_clone(prototype.handle)


class _Prototype:
    """A sampler to clone. Frees it once nothing uses it."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        weakref.finalize(self, ll.llama_sampler_free, handle).atexit = False


# To find the tokens of a sequence breaker llama.cpp walks the whole vocabulary, once for each breaker. Measured with
# 49,152 tokens: 30 ms for the default four, 0.1 ms for a clone.
@lru_cache(maxsize=8)
def _dry_prototype(
    vocabulary: Vocabulary, multiplier: float, base: float, allowed: int, last_n: int, breakers: tuple[str, ...]
) -> _Prototype:
    encoded = (ctypes.c_char_p * len(breakers))(*(breaker.encode() for breaker in breakers))
    handle = ll.llama_sampler_init_dry(vocabulary.handle, multiplier, base, allowed, last_n, encoded, len(breakers))
    return _Prototype(handle)
