"""The dimensions that a model's memory depends on, from its files' headers. Layers may differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from registry.models.gguf_header import Header

# For headers with a sliding window but no pattern: every n-th layer attends to everything (llama.cpp's src/models).
SLIDING_PATTERNS = {
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "olmo2": 4,
}
LARGEST = 2**24  # of any number here; a header is untrusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Numbers of elements, not bytes. 0 where a header has no value."""

    tensor_bytes: int
    embedding_length: int
    vocabulary: int
    heads: int
    feed_forward: int  # of the widest layer that is not a mixture of experts
    experts: int  # of one layer
    experts_used: tuple[int, ...]  # for one token: one number, or one for each layer
    expert_feed_forward: int  # of one expert
    key_widths: tuple[int, ...]  # of one token's keys, all heads, by layer
    value_widths: tuple[int, ...]
    sliding_window: int  # tokens
    sliding_layers: tuple[bool, ...]  # layers that attend to the window only
    state: int  # elements of a recurrent layer's state, per sequence
    recurrent_layers: int
    tensor_sizes: Mapping[str, int]  # bytes by name, without small ones of models with very many

    def feed_forward_used(self, num_experts: int | None) -> int:
        """Of the widest layer, for one token. `num_experts`: used, if it is not as many as in training."""
        used = num_experts or max(self.experts_used, default=0)
        return max(self.feed_forward, used * self.expert_feed_forward)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)


def shape_of(headers: Sequence[Header], architecture: str) -> Shape:
    facts = _Facts(headers[0].metadata, architecture)
    layers, embedding = min(facts.number("block_count"), 1024), facts.number("embedding_length")
    heads = facts.each("attention.head_count", layers)
    heads_kv = facts.each("attention.head_count_kv", layers) or heads or (0,) * layers
    head = embedding // max(1, max(heads, default=1))
    keys, values = facts.number("attention.key_length") or head, facts.number("attention.value_length") or head
    state = _state(facts)
    attends = not state or facts.has("attention.head_count_kv") or facts.number("attention.head_count") > 0
    latent = facts.has("attention.key_length_mla")  # values are computed from keys, not cached
    return Shape(
        tensor_bytes=sum(header.tensor_bytes for header in headers),
        embedding_length=embedding,
        vocabulary=max(header.vocabulary for header in headers),
        heads=max(heads, default=0),
        feed_forward=facts.number("feed_forward_length"),
        experts=facts.number("expert_count"),
        experts_used=facts.given("expert_used_count"),
        expert_feed_forward=_expert_feed_forward(facts),
        key_widths=tuple(count * keys if attends else 0 for count in heads_kv),
        value_widths=tuple(count * values if attends and not latent else 0 for count in heads_kv),
        sliding_window=facts.number("attention.sliding_window"),
        sliding_layers=_sliding(facts, architecture, layers),
        state=state,
        recurrent_layers=_recurrent_layers(heads_kv, layers) if state else 0,
        tensor_sizes={name: size for header in headers for name, size in header.tensor_sizes.items()},
    )


class _Facts:
    """The architecture's part of the metadata, with bounded numbers."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata = metadata
        self._architecture = architecture

    def has(self, name: str) -> bool:
        return f"{self._architecture}.{name}" in self._metadata

    def number(self, name: str) -> int:
        """A number; of an array the largest."""
        return max(self._numbers(name), default=0)

    def given(self, name: str) -> tuple[int, ...]:
        """The numbers as the header has them: one, or one per layer."""
        return self._numbers(name)

    def each(self, name: str, layers: int) -> tuple[int, ...]:
        """One number per layer."""
        found = self._numbers(name)
        if len(found) == 1:
            return found * layers
        return (*found, *([0] * layers))[:layers] if found else ()

    def _numbers(self, name: str) -> tuple[int, ...]:
        value = self._metadata.get(f"{self._architecture}.{name}")
        values = value if isinstance(value, tuple) else (value,)
        return tuple(int(each) for each in values if isinstance(each, int) and 0 <= each <= LARGEST)


def _expert_feed_forward(facts: _Facts) -> int:
    """Some mixtures have one width for experts and other layers."""
    return facts.number("expert_feed_forward_length") or facts.number("feed_forward_length")


def _sliding(facts: _Facts, architecture: str, layers: int) -> tuple[bool, ...]:
    """Without a known pattern, all layers count as attending to everything: the upper bound."""
    if not facts.number("attention.sliding_window"):
        return (False,) * layers
    pattern = facts.each("attention.sliding_window_pattern", layers)
    if len(set(pattern)) > 1:
        return tuple(map(bool, pattern))
    period = (pattern[0] if pattern else 0) or SLIDING_PATTERNS.get(architecture, 1)
    return tuple(layer % period < period - 1 for layer in range(layers))


def _state(facts: _Facts) -> int:
    """Elements of a recurrent layer's state per sequence: Mamba's convolution and state, or RWKV's."""
    embedding = facts.number("embedding_length")
    if head := facts.number("wkv.head_size"):
        return embedding * (facts.number("token_shift_count") or 2) + embedding * head
    inner, state = facts.number("ssm.inner_size"), facts.number("ssm.state_size")
    past = max(0, facts.number("ssm.conv_kernel") - 1)
    return past * (inner + 2 * facts.number("ssm.group_count") * state) + inner * state


def _recurrent_layers(heads_kv: Sequence[int], layers: int) -> int:
    """Layers without keys; all layers, as an upper bound, if the header does not distinguish them."""
    without = sum(count == 0 for count in heads_kv)
    return without or layers
