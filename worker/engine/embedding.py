"""Embeddings: one vector for a text, through a context of its own over the same weights."""

import numpy as np
from llama_cpp import llama_cpp as ll

from atelier.errors import ContextLengthExceeded
from atelier.settings.groups import Load
from worker.engine.context import Context, generation_params
from worker.engine.llama_log import LlamaLog
from worker.engine.model import Model

LONGEST_INPUT = 8192  # tokens: non-causal models need a whole input in one compute graph


class Embedder:
    """Made at the first use, on the engine's thread. `close` frees the context."""

    def __init__(self, model: Model, load: Load, log: LlamaLog) -> None:
        params = generation_params(load)
        self._longest = min(load.context_length, LONGEST_INPUT)
        params.n_ctx = params.n_batch = params.n_ubatch = self._longest
        params.n_seq_max = 1
        params.embeddings = True
        if model.pooling in ("", "0"):
            params.pooling_type = ll.LLAMA_POOLING_TYPE_MEAN
        self._context = Context(model, params, log)
        self._size = model.embedding_length

    def embed(self, tokens: list[int]) -> list[float]:
        """The pooled vector of unit length, [embedding length]."""
        if len(tokens) > self._longest:
            raise ContextLengthExceeded(
                f"The input has {len(tokens)} tokens; at most {self._longest} can be embedded at once.", param="input"
            )
        self._context.clear()
        self._context.decode_prompt(0, tokens, 0, "all")
        pointer = ll.llama_get_embeddings_seq(self._context.handle, 0)
        vector = np.ctypeslib.as_array(pointer, shape=(self._size,)).astype(np.float64)
        norm = float(np.linalg.norm(vector))
        return [float(value) for value in vector / norm] if norm > 0 else vector.tolist()

    def close(self) -> None:
        self._context.close()
