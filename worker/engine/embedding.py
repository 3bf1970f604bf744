"""Texts to vectors or scores: whole inputs, several at a time, through a context of its own over the same weights."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.errors import ContextLengthExceeded, InvalidRequest
from atelier.settings.groups import Load
from worker.engine.model.context import Context
from worker.engine.model.context_params import Threads, generation_params
from worker.engine.model.loaded_model import NO_POOLING, LlamaLog, Model

LONGEST_INPUT = 8192  # tokens: an input is computed in one graph, whose buffers grow with it
MOST_INPUTS = 64  # of one batch
CPU_BATCH = 128  # tokens of one batch beside running texts, which wait for it

Tokens = list[int]
Vectors = NDArray[np.float32]
"""One row for each input: the pooled vector, or a reranker's scores."""

T = TypeVar("T", bound=Sequence[int])


class Embedder:
    """Made at the first use, on the engine's thread. `close` frees its contexts.

    One context takes batches. An input that is longer than those has one of its own size: few are.
    """

    def __init__(self, model: Model, load: Load, log: LlamaLog, threads: Threads) -> None:
        self._threads = threads
        self._model = model
        self._load = load
        self._log = log
        self._batch_room = batch_tokens(model, load)
        self._contexts: dict[int, Context] = {}  # by room, in tokens

    def pool(self, inputs: Sequence[Tokens]) -> Vectors:
        """One batch: what the model makes of each input."""
        context = self._context_for(sum(map(len, inputs)))
        context.clear()
        context.decode_inputs(inputs)
        return np.stack([self._pooled(context, number) for number in range(len(inputs))])

    def _pooled(self, context: Context, number: int) -> NDArray[np.float32]:
        pointer = ll.llama_get_embeddings_seq(context.handle, number)
        return np.ctypeslib.as_array(pointer, shape=(self._model.pooled_length,)).copy()

    def _context_for(self, tokens: int) -> Context:
        room = self._batch_room if tokens <= self._batch_room else 1 << (tokens - 1).bit_length()
        if room not in self._contexts:
            self._contexts[room] = Context(self._model, self._params(room), self._log, threads=self._threads)
        return self._contexts[room]

    def _params(self, room: int) -> ll.llama_context_params:
        params = generation_params(self._load, on_gpu=self._model.gpu_layers > 0)
        params.n_ctx = params.n_batch = params.n_ubatch = room
        params.n_seq_max = MOST_INPUTS
        params.kv_unified = True  # inputs of all lengths share the cells
        params.type_k = params.type_v = ll.GGML_TYPE_F16
        if room == self._batch_room:
            # Flash attention rounds by where in the batch an input lies: cosine 0.9998 instead of 1 (Q4_1, AVX2).
            params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.embeddings = True
        if self._model.pooling in NO_POOLING:
            params.pooling_type = ll.LLAMA_POOLING_TYPE_MEAN
        return params

    def close(self) -> None:
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()


def longest_input(model: Model, load: Load) -> int:
    """Tokens of the longest input that the model takes."""
    return min(load.context_length, model.trained_length or LONGEST_INPUT, LONGEST_INPUT)


def batch_tokens(model: Model, load: Load) -> int:
    """Tokens of a batch of several inputs."""
    shared = not model.only_embeds and model.gpu_layers == 0
    return min(load.ubatch_size, CPU_BATCH) if shared else load.ubatch_size


def batches(inputs: Sequence[T], room: int, most: int = MOST_INPUTS) -> Iterator[list[T]]:
    """The inputs in their order, as many at a time as have room together; a longer one goes alone."""
    batch: list[T] = []
    tokens = 0
    for each in inputs:
        if batch and (tokens + len(each) > room or len(batch) == most):
            yield batch
            batch, tokens = [], 0
        batch.append(each)
        tokens += len(each)
    if batch:
        yield batch


def check_lengths(inputs: Sequence[Tokens], longest: int, what: str) -> None:
    """ContextLengthExceeded names the first input that is too long, counted from 0."""
    for number, tokens in enumerate(inputs):
        if len(tokens) > longest:
            raise ContextLengthExceeded(
                f"{what.capitalize()} {number} has {len(tokens)} tokens; this model takes at most {longest} at once.",
                param=what,
            )


def check_dimensions(dimensions: int | None, length: int) -> None:
    if dimensions is not None and not 1 <= dimensions <= length:
        raise InvalidRequest(
            f"dimensions is between 1 and {length} for this model, not {dimensions}.", param="dimensions"
        )


def unit_vectors(vectors: Vectors, dimensions: int | None) -> list[list[float]]:
    """The vectors' first `dimensions` numbers, made of length 1; a zero vector stays one."""
    cut = vectors[:, :dimensions].astype(np.float64)
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    rows: list[list[float]] = np.divide(cut, norms, out=np.zeros_like(cut), where=norms > 0).tolist()
    return rows
