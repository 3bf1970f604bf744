"""The vocabulary of a model's file, without its weights."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from llama_cpp import llama_cpp as ll

from worker.engine.model.loaded_model import LlamaLog
from worker.engine.model.vocabulary import Vocabulary


@contextlib.contextmanager
def opened_vocabulary(path: Path) -> Iterator[Vocabulary]:
    log = LlamaLog()
    ll.llama_log_set(log.callback, None)
    params = ll.llama_model_default_params()
    params.vocab_only = True
    model = ll.llama_model_load_from_file(str(path).encode(), params)
    assert model
    try:
        yield Vocabulary(model)
    finally:
        ll.llama_model_free(model)
