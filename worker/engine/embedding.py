"""Embeddings and rerank scores: whole inputs, several at a time, in a context of their own over the same weights."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.errors import ContextLengthExceeded, InvalidRequest
from atelier.settings.resolution import extends_context
from worker.engine.model.context import Context, Threads, generation_params
from worker.engine.model.loaded_model import NO_POOLING, LlamaLog, LoadedModel

LONGEST_INPUT = 8192  # tokens: an input is computed in one graph, whose buffers grow with it
MOST_INPUTS = 64  # of one batch
CPU_BATCH = 128  # tokens of one batch beside completions, which wait for it

Tokens = list[int]
Vectors = NDArray[np.float32]
"""One row for each input: the pooled vector, or a reranker's scores."""

T = TypeVar("T", bound=Sequence[int])


class Embedder:
    """Created at the first use, on the engine's thread. `close` frees its contexts.

    One context computes batches. The few inputs that are longer than a batch have contexts of their own size.
    """

    def __init__(self, model: LoadedModel, log: LlamaLog, threads: Threads) -> None:
        self._threads = threads
        self._model = model
        self._log = log
        self._batch_room = batch_tokens(model)
        self._contexts: dict[int, Context] = {}  # by room, in tokens

    def pool(self, inputs: Sequence[Tokens]) -> Vectors:
        """The pooled output of each input of one batch. Raises DecodeFailed."""
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
        params = generation_params(self._model.load, on_gpu=self._model.gpu_layers > 0)
        params.n_ctx = params.n_batch = params.n_ubatch = room
        params.n_seq_max = MOST_INPUTS
        params.kv_unified = True  # inputs of all lengths share the cells
        params.swa_full = False  # no input is continued
        params.type_k = params.type_v = ll.GGML_TYPE_F16
        if room == self._batch_room:
            # Flash attention's rounding depends on an input's place in the batch: cosine 0.9998, not 1 (Q4_1, AVX2).
            params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.embeddings = True
        if self._model.pooling in NO_POOLING:
            params.pooling_type = ll.LLAMA_POOLING_TYPE_MEAN
        return params

    def close(self) -> None:
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()


def longest_input(model: LoadedModel) -> int:
    """Tokens of the longest input that is accepted."""
    trained = LONGEST_INPUT if extends_context(model.load) else model.trained_length or LONGEST_INPUT
    return min(model.load.context_length, trained, LONGEST_INPUT)


def batch_tokens(model: LoadedModel) -> int:
    """Tokens of a batch of several inputs."""
    shared = not model.only_embeds and model.gpu_layers == 0
    return min(model.load.ubatch_size, CPU_BATCH) if shared else model.load.ubatch_size


def batches(inputs: Sequence[T], room: int, most: int = MOST_INPUTS) -> Iterator[list[T]]:
    """The inputs in their order, in batches of at most `room` tokens; a longer input is a batch of its own."""
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
    """Raises ContextLengthExceeded, which names the first input that is too long, counted from 0."""
    for number, tokens in enumerate(inputs):
        if len(tokens) > longest:
            raise ContextLengthExceeded(
                f"{what.capitalize()} {number} has {len(tokens)} tokens; this model takes at most {longest} at once.",
                param=what,
            )


def check_dimensions(dimensions: int | None, length: int) -> None:
    """Raises InvalidRequest."""
    if dimensions is not None and not 1 <= dimensions <= length:
        raise InvalidRequest(
            f"dimensions is between 1 and {length} for this model, not {dimensions}.", param="dimensions"
        )


def unit_vectors(vectors: Vectors, dimensions: int | None) -> list[list[float]]:
    """The vectors' first `dimensions` numbers, normalised to length 1; a zero vector stays zero."""
    cut = vectors[:, :dimensions].astype(np.float64)
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    rows: list[list[float]] = np.divide(cut, norms, out=np.zeros_like(cut), where=norms > 0).tolist()
    return rows
