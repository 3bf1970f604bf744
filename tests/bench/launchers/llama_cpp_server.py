"""`python -m llama_cpp.server`, with `ignore_eos` and an end. Runs in .venv-bench.

It knows no `ignore_eos`; its `min_tokens` and `logit_bias` would walk the whole vocabulary for every
token in Python, a cost that its users do not have. So an end token is just no end here, unless a
grammar asks for one. It ends when standard input does.
"""

import os
import sys
import threading
from typing import Any

import llama_cpp
from llama_cpp.server.__main__ import main

is_end = llama_cpp.llama_cpp.llama_vocab_is_eog
generate = llama_cpp.Llama.generate
ends_count = False


def is_end_that_counts(vocabulary: Any, token: int) -> bool:
    return ends_count and bool(is_end(vocabulary, token))


def generate_noting_grammar(self: llama_cpp.Llama, *arguments: Any, **options: Any) -> Any:
    """It answers one request at a time, so one flag is enough."""
    global ends_count
    ends_count = options.get("grammar") is not None
    return generate(self, *arguments, **options)


def end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


llama_cpp.llama_cpp.llama_vocab_is_eog = is_end_that_counts
llama_cpp.Llama.generate = generate_noting_grammar
threading.Thread(target=end_with_parent, daemon=True).start()
main()
