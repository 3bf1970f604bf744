"""Whether attention is computed by flash attention: on a CPU llama.cpp's is slower than the plain way. Pure.

Flash attention takes no memory for the scores, of all keys by all tokens of a graph. But on a CPU it reads the keys
once for each row and each head (ggml-cpu/ops.cpp): a decode step takes up to twice as long as with matrix products, and
a prompt as long. The plain way adds operations to each layer, so it pays from some length of a context on: about 130
tokens where a token's values are 2,048 wide, 300 where they are 576 (docs/performance.md).
"""

from atelier.settings import Load

MOST_SCORES = 512 * 2**20  # bytes that they may take before flash attention is chosen for its memory
NARROW = 1024  # values of a token, below which most contexts are too short for the plain way to pay
UNQUANTISED = ("f32", "f16", "bf16")  # types of the KV cache
FLOAT = 4  # bytes


def uses_flash_attention(load: Load, heads: int, width: int, *, on_gpu: bool) -> bool | None:
    """As requested; None where llama.cpp decides by the device, which is where a part of the model is on a GPU.

    `heads`: of a layer's attention. `width`: values of a token between layers.
    """
    if load.flash_attention is not None or on_gpu:
        return load.flash_attention
    values = load.v_type or load.kv_type
    needed = load.reproducible or values not in UNQUANTISED  # see batch_invariance.py; llama.cpp requires it for others
    return needed or width < NARROW or score_bytes(load, heads) > MOST_SCORES


def score_bytes(load: Load, heads: int) -> int:
    """Of the scores in the largest graph."""
    return min(load.ubatch_size, load.batch_size) * load.context_length * heads * FLOAT
