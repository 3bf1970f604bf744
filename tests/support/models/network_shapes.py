"""Shapes of models: architecture, sizes, and which layers are of what kind."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The state of a layer that has one instead of a cache of keys and values."""

    heads: int
    state: int  # numbers of a head's state for each of its inputs
    inner: int  # inputs of all heads
    groups: int  # of heads that share what they read and write
    kernel: int = 4  # tokens that the convolution before it sees


@dataclass(frozen=True, slots=True)
class Experts:
    count: int
    used: int  # for each token


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """What distinguishes one model's computation from another's, weights apart."""

    name: str
    architecture: str  # llama, granitemoe, gemma3, mamba2 or qwen35
    layers: int
    width: int  # of an embedding
    inner: int  # of the feed-forward network, or of one expert
    heads: int
    kv_heads: int
    head: int  # numbers of an attention head
    context: int  # tokens it was trained for, if it had been trained
    rope_base: float = 10_000.0
    sliding_window: int = 0  # tokens
    full_attention_every: int = 1  # layers; those between have a sliding window or a recurrent state
    recurrence: Recurrence | None = None
    experts: Experts | None = None
    is_tied: bool = True  # the output layer is that of the embeddings

    def has_full_attention(self, layer: int) -> bool:
        return bool(self.heads) and (layer + 1) % self.full_attention_every == 0


SMOLLM2_1_7B = NetworkShape("1.7b", "llama", 24, 2048, 8192, 32, 32, 64, 8192, 130_000.0)
LLAMA_3_2_3B = NetworkShape("3b", "llama", 28, 3072, 8192, 24, 8, 128, 131_072, 500_000.0)
GRANITE_3_1_3B_A800M = NetworkShape(
    "moe", "granitemoe", 32, 1536, 512, 24, 8, 64, 131_072, 10_000_000.0, experts=Experts(40, 8)
)
GEMMA_3_1B = NetworkShape(
    "sliding", "gemma3", 26, 1152, 6912, 4, 1, 256, 32_768, 1_000_000.0, sliding_window=512, full_attention_every=6
)
MAMBA2_780M = NetworkShape(
    "recurrent", "mamba2", 48, 1536, 0, 0, 0, 0, 1_048_576, recurrence=Recurrence(48, 128, 3072, 1)
)
QWEN_3_5_2B = NetworkShape(
    "hybrid", "qwen35", 24, 2048, 6144, 8, 2, 256, 262_144, 10_000_000.0,
    full_attention_every=4, recurrence=Recurrence(16, 128, 2048, 16),
)  # fmt: skip

SHAPES = {
    shape.name: shape
    for shape in (SMOLLM2_1_7B, LLAMA_3_2_3B, GRANITE_3_1_3B_A800M, GEMMA_3_1B, MAMBA2_780M, QWEN_3_5_2B)
}


def _tiny(shape: NetworkShape, name: str, **sizes: Any) -> NetworkShape:
    """Of the same kind, computed in milliseconds: for tests.

    Tied embeddings would make so few layers repeat the last token for ever.
    """
    return replace(shape, name=f"tiny-{name}", width=64, context=4096, is_tied=False, **sizes)


_HEADS = {"heads": 2, "kv_heads": 1, "head": 32}
TINY_DENSE = _tiny(SMOLLM2_1_7B, "dense", layers=2, inner=128, **_HEADS)
TINY_MIXTURE = _tiny(GRANITE_3_1_3B_A800M, "moe", layers=2, inner=64, experts=Experts(4, 2), **_HEADS)
TINY_SLIDING = _tiny(
    GEMMA_3_1B, "sliding", layers=4, inner=128, sliding_window=64, full_attention_every=2, **_HEADS
)  # fmt: skip
TINY_RECURRENT = _tiny(MAMBA2_780M, "recurrent", layers=3, recurrence=Recurrence(4, 16, 128, 1))
TINY_HYBRID = _tiny(
    QWEN_3_5_2B, "hybrid", layers=4, inner=128, full_attention_every=2, recurrence=Recurrence(2, 32, 64, 2),
    **(_HEADS | {"head": 64}),
)  # fmt: skip
TINY_SHAPES = (TINY_DENSE, TINY_MIXTURE, TINY_SLIDING, TINY_RECURRENT, TINY_HYBRID)
