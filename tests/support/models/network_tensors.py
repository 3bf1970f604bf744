"""The tensors that llama.cpp expects of a shape, and how their random numbers are drawn.

Matrices are scaled by their inputs, so that what a layer adds has a deviation of about one. Queries are longer: were
attention spread over all tokens alike, texts would hardly depend on them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.support.models.network_shapes import NetworkShape, Recurrence

SHARPNESS = 3.0  # of attention: the deviation of its scores
Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    size: tuple[int, ...]  # slowest dimension first: a matrix is (outputs, inputs)
    draw: Draw
    is_matrix: bool = False  # what quantisation applies to; the rest stays float32


def layer_tensors(shape: NetworkShape) -> Iterator[Tensor]:
    for layer in range(shape.layers):
        for tensor in LAYERS[shape.architecture](shape, layer):
            yield Tensor(f"blk.{layer}.{tensor.name}", tensor.size, tensor.draw, tensor.is_matrix)


def matrix(name: str, *size: int) -> Tensor:
    return Tensor(f"{name}.weight", size, by_inputs, is_matrix=True)


def norm(name: str, *size: int) -> Tensor:
    return Tensor(f"{name}.weight", size, ones)


def by_inputs(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    numbers = random.standard_normal(size, np.float32)
    numbers *= size[-1] ** -0.5
    return numbers


def sharp_by_inputs(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    return SHARPNESS * by_inputs(random, size)


def ones(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    return np.ones(size, np.float32)


def sharp(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(size, SHARPNESS, np.float32)


def zeros(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    return np.zeros(size, np.float32)


def decays(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    """How fast a state fades, before the time step: as Mamba 2 is initialised."""
    return -random.uniform(1, 16, size).astype(np.float32)


def time_steps(random: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Biases for which softplus gives 0.001 to 0.1: as Mamba 2 is initialised."""
    steps = np.exp(random.uniform(np.log(0.001), np.log(0.1), size))
    return np.log(np.expm1(steps)).astype(np.float32)


def _llama(shape: NetworkShape, layer: int) -> Iterator[Tensor]:
    yield norm("attn_norm", shape.width)
    yield from _attention(shape)
    yield norm("ffn_norm", shape.width)
    yield from _feed_forward(shape)


def _granite_mixture(shape: NetworkShape, layer: int) -> Iterator[Tensor]:
    assert shape.experts is not None
    count = shape.experts.count
    yield norm("attn_norm", shape.width)
    yield from _attention(shape)
    yield norm("ffn_norm", shape.width)
    # llama.cpp never quantises the router, and converters write it as float32.
    yield Tensor("ffn_gate_inp.weight", (count, shape.width), by_inputs)
    yield matrix("ffn_gate_exps", count, shape.inner, shape.width)
    yield matrix("ffn_up_exps", count, shape.inner, shape.width)
    yield matrix("ffn_down_exps", count, shape.width, shape.inner)


def _gemma(shape: NetworkShape, layer: int) -> Iterator[Tensor]:
    yield norm("attn_norm", shape.width)
    yield from _attention(shape)
    yield Tensor("attn_q_norm.weight", (shape.head,), sharp)
    yield norm("attn_k_norm", shape.head)
    yield norm("post_attention_norm", shape.width)
    yield norm("ffn_norm", shape.width)
    yield from _feed_forward(shape)
    yield norm("post_ffw_norm", shape.width)


def _mamba(shape: NetworkShape, layer: int) -> Iterator[Tensor]:
    state = _recurrence(shape)
    convolved = state.inner + 2 * state.groups * state.state
    yield norm("attn_norm", shape.width)
    yield matrix("ssm_in", state.inner + convolved + state.heads, shape.width)
    yield Tensor("ssm_conv1d.weight", (convolved, state.kernel), by_inputs)
    yield Tensor("ssm_conv1d.bias", (convolved,), zeros)
    yield Tensor("ssm_dt.bias", (state.heads,), time_steps)
    yield Tensor("ssm_a", (state.heads, 1), decays)
    yield Tensor("ssm_d", (state.heads, 1), ones)
    yield norm("ssm_norm", state.groups, state.inner // state.groups)
    yield matrix("ssm_out", shape.width, state.inner)


def _qwen_hybrid(shape: NetworkShape, layer: int) -> Iterator[Tensor]:
    yield norm("attn_norm", shape.width)
    if shape.has_full_attention(layer):
        yield from _attention(shape, queries=2)  # each head's query and its output's gate
        yield Tensor("attn_q_norm.weight", (shape.head,), sharp)
        yield norm("attn_k_norm", shape.head)
    else:
        yield from _delta_net(shape)
    yield norm("post_attention_norm", shape.width)
    yield from _feed_forward(shape)


def _delta_net(shape: NetworkShape) -> Iterator[Tensor]:
    state = _recurrence(shape)
    convolved = 2 * state.groups * state.state + state.inner
    yield matrix("attn_qkv", convolved, shape.width)
    yield matrix("attn_gate", state.inner, shape.width)
    yield Tensor("ssm_conv1d.weight", (convolved, state.kernel), by_inputs)
    yield Tensor("ssm_dt.bias", (state.heads,), time_steps)
    yield Tensor("ssm_a", (state.heads,), decays)
    yield matrix("ssm_beta", state.heads, shape.width)
    yield matrix("ssm_alpha", state.heads, shape.width)
    yield norm("ssm_norm", state.inner // state.heads)
    yield matrix("ssm_out", shape.width, state.inner)


def _attention(shape: NetworkShape, queries: int = 1) -> Iterator[Tensor]:
    yield Tensor("attn_q.weight", (queries * shape.heads * shape.head, shape.width), sharp_by_inputs, is_matrix=True)
    yield matrix("attn_k", shape.kv_heads * shape.head, shape.width)
    yield matrix("attn_v", shape.kv_heads * shape.head, shape.width)
    yield matrix("attn_output", shape.width, shape.heads * shape.head)


def _feed_forward(shape: NetworkShape) -> Iterator[Tensor]:
    yield matrix("ffn_gate", shape.inner, shape.width)
    yield matrix("ffn_up", shape.inner, shape.width)
    yield matrix("ffn_down", shape.width, shape.inner)


def _recurrence(shape: NetworkShape) -> Recurrence:
    assert shape.recurrence is not None
    return shape.recurrence


LAYERS: dict[str, Callable[[NetworkShape, int], Iterator[Tensor]]] = {
    "llama": _llama,
    "granitemoe": _granite_mixture,
    "gemma3": _gemma,
    "mamba2": _mamba,
    "qwen35": _qwen_hybrid,
}
