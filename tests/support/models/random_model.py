"""A model file of a shape with random weights: real tensors and a real tokenizer, nonsense for text.

One tensor is in memory at a time, so that models of billions of parameters can be written on a small machine.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from numpy.typing import NDArray

from tests.support.models.network_shapes import NetworkShape
from tests.support.models.network_tensors import Tensor, layer_tensors, norm
from tests.support.models.tiny_llama import add_byte_vocabulary

Progress = Callable[[float], None]  # receives the share that is done

LOGIT_DEVIATION = 3.0  # of a vocabulary's logits: some tokens are likelier than others, none is certain
MUTED = 0.1  # of the rows of a token that is no text by itself: it is never among the likeliest
SPACE = "Ġ"  # in vocabularies of byte pairs
ROPE_SECTIONS = (11, 11, 10)  # of 32 pairs: time, rows and columns, for qwen35


def write_random_model(
    path: Path,
    shape: NetworkShape,
    tokenizer: Path | None = None,
    *,
    seed: int = 0,
    progress: Progress = lambda share: None,
) -> Path:
    """The model at `path`, its matrices as float16.

    `tokenizer`: a model file whose vocabulary and chat template are copied. Without one the tokens are bytes and
    letters, and there is no template.
    """
    writer = GGUFWriter(path, shape.architecture)
    _describe(writer, shape)
    if tokenizer is None:
        loud = np.ones(add_byte_vocabulary(writer), np.bool)
    else:
        loud = np.array([is_text(token) for token in _copy_tokenizer(writer, tokenizer)])
    tensors = [*_outer_tensors(shape, loud), *layer_tensors(shape)]
    _write_tensors(writer, tensors, np.random.default_rng(seed), progress)
    writer.close()
    return path


def is_text(token: str) -> bool:
    """Whether a token of a byte-pair vocabulary is text by itself: not a control token, nor a part of a character."""
    return token.replace(SPACE, " ").isascii() and not (token.startswith("<") and token.endswith(">"))


def _describe(writer: GGUFWriter, shape: NetworkShape) -> None:
    writer.add_name(f"Random {shape.name}")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.heads:
        _describe_attention(writer, shape)
    if shape.recurrence is not None:
        writer.add_ssm_conv_kernel(shape.recurrence.kernel)
        writer.add_ssm_inner_size(shape.recurrence.inner)
        writer.add_ssm_state_size(shape.recurrence.state)
        writer.add_ssm_time_step_rank(shape.recurrence.heads)
        writer.add_ssm_group_count(shape.recurrence.groups)
    if shape.experts is not None:
        writer.add_expert_count(shape.experts.count)
        writer.add_expert_used_count(shape.experts.used)
    if shape.architecture == "granitemoe":
        writer.add_logit_scale(1.0)


def _describe_attention(writer: GGUFWriter, shape: NetworkShape) -> None:
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.sliding_window:
        writer.add_sliding_window(shape.sliding_window)
        writer.add_sliding_window_pattern(shape.full_attention_every)
    if shape.architecture == "qwen35":
        rotated = shape.head // 4
        writer.add_rope_dimension_count(rotated)
        writer.add_rope_dimension_sections([*(pairs * rotated // 64 for pairs in ROPE_SECTIONS), 0])
        writer.add_full_attention_interval(shape.full_attention_every)


def _copy_tokenizer(writer: GGUFWriter, model: Path) -> Sequence[str]:
    """Returns its tokens."""
    reader = GGUFReader(model)
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            element = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], element)
    tokens: Sequence[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    return tokens


def _outer_tensors(shape: NetworkShape, loud: NDArray[np.bool]) -> Iterator[Tensor]:
    for name in ("token_embd",) if shape.is_tied else ("token_embd", "output"):
        draw = partial(_by_tokens, loud=loud)
        yield Tensor(f"{name}.weight", (len(loud), shape.width), draw, is_matrix=True)
    yield norm("output_norm", shape.width)


def _by_tokens(random: np.random.Generator, size: tuple[int, ...], loud: NDArray[np.bool]) -> NDArray[np.float32]:
    """A row for each token, for inputs that have a deviation of one."""
    numbers = random.standard_normal(size, np.float32)
    numbers *= np.where(loud, 1.0, MUTED).astype(np.float32)[:, None] * (LOGIT_DEVIATION * size[-1] ** -0.5)
    return numbers


def _write_tensors(
    writer: GGUFWriter, tensors: Sequence[Tensor], random: np.random.Generator, progress: Progress
) -> None:
    for tensor in tensors:
        kind = _stored(tensor)
        writer.add_tensor_info(tensor.name, tensor.size, kind, prod(tensor.size) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total, done = sum(prod(tensor.size) for tensor in tensors), 0
    for tensor in tensors:
        writer.write_tensor_data(tensor.draw(random, tensor.size).astype(_stored(tensor)))
        done += prod(tensor.size)
        progress(done / total)


def _stored(tensor: Tensor) -> np.dtype[Any]:
    return np.dtype(np.float16 if tensor.is_matrix else np.float32)
