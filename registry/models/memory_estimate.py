"""Estimates the memory of a model before it is loaded, from its shape and load settings. Pure.

Counted as llama.cpp does: weights, KV cache with recurrent states, and the compute buffers of the largest graph. Of
the graph only the large tensors count: logits of all its tokens, attention, feed-forward. They are computed one
after the other, so the largest counts. Checkpoints count as a part of the KV cache, though they are in main memory
wherever that is. An upper bound where a header lacks facts, as of hybrid architectures.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from atelier.settings import Load
from atelier.tensor_placement import placed_bytes, tensor_overrides
from registry.models.model_record import Model
from registry.models.model_shape import Shape

CELLS = 256  # the cache is allocated in steps of this many tokens
FLOAT = 4  # bytes
SHORTEST_CONTEXT = 2048  # tokens, of the context lengths that a description lists
KEPT_ROWS = 2  # of the embedding's width, kept during a layer


@dataclass(frozen=True, slots=True)
class Estimate:
    """In bytes, over all devices together.

    `fixed`: of the weights, by device, the tensors that load settings place there, wherever their layers lie.
    """

    weights: int
    kv_cache: int  # with its checkpoints
    compute: int
    fixed: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Estimate") -> "Estimate":
        """Of two models loaded together."""
        fixed = Counter(self.fixed) + Counter(other.fixed)
        return Estimate(
            self.weights + other.weights, self.kv_cache + other.kv_cache, self.compute + other.compute, dict(fixed)
        )

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


def estimate_memory(shape: Shape, load: Load, *, embeds_only: bool = False) -> Estimate:
    """In bytes. `embeds_only`: an embedding model has no cache and computes no logits."""
    fixed = placed_bytes(shape.tensor_sizes, tensor_overrides(load))
    if embeds_only:
        compute = _graph(shape, load, cells=_tokens(load), flash=False, outputs=0)
        return Estimate(shape.tensor_bytes, 0, compute, fixed)
    flash = load.flash_attention is not False
    compute = _graph(shape, load, cells=_cells(load.context_length), flash=flash, outputs=_tokens(load))
    compute += load.parallel * shape.vocabulary * FLOAT
    return Estimate(shape.tensor_bytes, _cache(shape, load) + _checkpoints(shape, load), compute, fixed)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model, and its memory by context length: more than every watcher needs."""

    model: Model
    memory: dict[int, Estimate]


def describe_model(model: Model, estimate: Callable[[int], Estimate]) -> ModelDescription:
    """`estimate`: the memory of an instance with this context length."""
    return ModelDescription(model, {length: estimate(length) for length in context_lengths(model.facts.context_length)})


def context_lengths(longest: int) -> list[int]:
    """The context lengths to list: doubled up to the longest, which is the last."""
    if longest <= SHORTEST_CONTEXT:
        return [longest] if longest else [SHORTEST_CONTEXT]
    lengths = [SHORTEST_CONTEXT]
    while lengths[-1] * 2 < longest:
        lengths.append(lengths[-1] * 2)
    return [*lengths, longest]


def _cache(shape: Shape, load: Load) -> int:
    streams = 1 if load.kv_unified else load.parallel
    everything = _cells(load.context_length)
    sliding = everything if load.swa_full else min(everything, _sliding_cells(shape, load))
    return round(_keys_and_values(shape, load, everything, sliding) * streams) + _states(shape, load)


def _keys_and_values(shape: Shape, load: Load, everything: int, sliding: int) -> float:
    """Of so many cells in layers that attend to everything, and in layers with a sliding window."""
    key_bytes, value_bytes = _bytes(load.k_type or load.kv_type), _bytes(load.v_type or load.kv_type)
    return sum(
        (keys * key_bytes + values * value_bytes) * (sliding if slides else everything)
        for keys, values, slides in zip(shape.key_widths, shape.value_widths, shape.sliding_layers, strict=True)
    )


def _checkpoints(shape: Shape, load: Load) -> int:
    """Each has the sequence's state, and the cells of its sliding windows."""
    if load.kv_unified or (load.swa_full and not shape.state):
        return 0
    window = _keys_and_values(shape, load, 0, min(shape.sliding_window, load.context_length))
    return load.checkpoints * (round(window * load.parallel) + _states(shape, load))


def _sliding_cells(shape: Shape, load: Load) -> int:
    """Cells of a sliding window: the window of each sequence in the cache, and one batch."""
    sequences = load.parallel if load.kv_unified else 1
    return _cells(shape.sliding_window * sequences + _tokens(load))


def _states(shape: Shape, load: Load) -> int:
    return shape.state * shape.recurrent_layers * load.parallel * FLOAT


def _graph(shape: Shape, load: Load, *, cells: int, flash: bool, outputs: int) -> int:
    tokens = _tokens(load)
    scores = 0 if flash else shape.heads * FLOAT
    mask = 2 if flash else FLOAT
    row = shape.embedding_length * FLOAT
    logits = outputs * shape.vocabulary * FLOAT
    attention = tokens * (cells * (scores + mask) + 2 * row)
    feed_forward = tokens * 2 * shape.feed_forward_used(load.num_experts) * FLOAT
    return max(logits, attention, feed_forward) + KEPT_ROWS * tokens * row


def _tokens(load: Load) -> int:
    """Tokens of one compute graph."""
    return min(load.ubatch_size, load.batch_size)


def _cells(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


def _bytes(kv_type: str) -> float:
    """Bytes per element of this type."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kv_type.upper()]]
    return float(size / block)
