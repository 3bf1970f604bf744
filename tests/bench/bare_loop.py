"""A loop over llama_decode and llama.cpp's samplers: what a machine reaches without an engine.

It keeps llama.cpp's own defaults, which are not reproducible, and has a process of its own: OpenMP's threads wait
differently where there are more of them than cores. `python -m tests.bench.bare_loop` is that process.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atelier.settings.groups import Inference
from tests.bench.decode_window import Window
from tests.bench.machine import physical_cores
from tests.bench.percentiles import median
from worker.__main__ import limit_threads

CONTEXT = 4096  # tokens of each sequence
SAMPLING = Inference(repeat_penalty=1.1, ignore_eos=True)
KEY_TYPES = {"f16": 1, "bf16": 30, "q8_0": 8}  # enum ggml_type
FLASH_TYPES = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type
FILLER = 1000  # a token, where it does not matter which

Entry = tuple[int, int, int, bool]  # sequence, token, position, and whether its logits are needed


class BareLoop:
    """One llama_context and a llama.cpp sampler chain for each sequence."""

    def __init__(self, model: Path, streams: int, key_type: str = "f16", flash: str = "auto") -> None:
        from llama_cpp import llama_cpp as ll

        self._ll = ll
        self._streams = streams
        self._model = ll.llama_model_load_from_file(str(model).encode(), ll.llama_model_default_params())
        params = ll.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = CONTEXT * streams, streams, False
        params.n_threads = params.n_threads_batch = physical_cores()
        params.type_k, params.flash_attn_type = KEY_TYPES[key_type], FLASH_TYPES[flash]
        self._context = ll.llama_init_from_model(self._model, params)
        self._most = int(ll.llama_n_batch(self._context))
        self._batch = ll.llama_batch_init(self._most, 0, 1)
        self._memory = ll.llama_get_memory(self._context)
        self._filled, self._copies = 0, 1  # tokens that `call` has put into the first sequence, and sequences with them

    def decode(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Tokens/s, of a sequence for each prompt."""
        ll = self._ll
        window = Window(self._streams)
        self._clear()
        with self._chains() as chains:
            following = []
            for slot, prompt in enumerate(prompts):
                self._decode([(slot, token, at, at == len(prompt) - 1) for at, token in enumerate(prompt)])
                following.append(ll.llama_sampler_sample(chains[slot], self._context, len(prompt) - 1))
                window.note(slot, 1)
            for step in range(tokens - 1):
                self._decode([(slot, token, len(prompts[slot]) + step, True) for slot, token in enumerate(following)])
                for slot in range(self._streams):
                    following[slot] = ll.llama_sampler_sample(chains[slot], self._context, slot)
                    window.note(slot, 1)
        window.end()
        return window.tokens_per_second

    def prefill(self, prompt: Sequence[int], rows: int | None = None) -> float:
        """Seconds until the logits after the prompt are known; in calls of so many rows, or of as many as may be."""
        rows = rows or self._most
        self._clear()
        started = time.perf_counter()
        for start in range(0, len(prompt), rows):
            part = prompt[start : start + rows]
            last = len(prompt) - 1
            self._decode([(0, token, at, at == last) for at, token in enumerate(part, start)])
        return time.perf_counter() - started

    def call(self, rows: int, depth: int, repetitions: int, streams: int = 1) -> float:
        """Seconds of one call of so many rows of each of `streams` texts after `depth` tokens; the median."""
        self._fill(depth, streams)
        places = [(slot, at) for slot in range(streams) for at in range(rows)]
        took = []
        for _ in range(repetitions):
            started = time.perf_counter()
            self._decode([(slot, FILLER + at, depth + at, at == rows - 1) for slot, at in places])
            took.append(time.perf_counter() - started)
            for slot in range(streams):
                self._ll.llama_memory_seq_rm(self._memory, slot, depth, -1)
        return median(took)

    def _fill(self, depth: int, streams: int) -> None:
        """The first `streams` sequences have `depth` tokens; those of the call before are used again."""
        if depth != self._filled:
            self._copies = 1
        if depth < self._filled:
            self._clear()
        for start in range(self._filled, depth, self._most):
            self._decode([(0, FILLER, at, False) for at in range(start, min(depth, start + self._most))])
        self._filled = depth
        if streams > self._copies:
            for slot in range(self._copies, streams):
                self._ll.llama_memory_seq_rm(self._memory, slot, -1, -1)
                self._ll.llama_memory_seq_cp(self._memory, 0, slot, -1, -1)
            self._copies = streams
            self._decode([(0, FILLER, depth, False)])  # llama.cpp copies with the next call
            self._ll.llama_memory_seq_rm(self._memory, 0, depth, -1)
        self._ll.llama_synchronize(self._context)

    def _clear(self) -> None:
        self._ll.llama_memory_clear(self._memory, False)
        self._filled, self._copies = 0, 1

    @contextmanager
    def _chains(self) -> Iterator[list[Any]]:
        chains = [self._chain(seed) for seed in range(self._streams)]
        yield chains
        for chain in chains:
            self._ll.llama_sampler_free(chain)

    def _chain(self, seed: int) -> Any:
        ll = self._ll
        words = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self._model))
        chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        for stage in (
            ll.llama_sampler_init_penalties(words, SAMPLING.repeat_last_n, SAMPLING.repeat_penalty, 0.0, 0.0),
            ll.llama_sampler_init_top_k(SAMPLING.top_k),
            ll.llama_sampler_init_top_p(SAMPLING.top_p, 1),
            ll.llama_sampler_init_min_p(SAMPLING.min_p, 1),
            ll.llama_sampler_init_temp(SAMPLING.temperature),
            ll.llama_sampler_init_dist(seed),
        ):
            ll.llama_sampler_chain_add(chain, stage)
        return chain

    def _decode(self, entries: Sequence[Entry]) -> None:
        """Returns when it is computed."""
        batch = self._batch
        for i, (slot, token, position, output) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, output
            batch.seq_id[i][0] = slot
        batch.n_tokens = len(entries)
        code = self._ll.llama_decode(self._context, batch)
        assert code == 0, code

    def close(self) -> None:
        self._ll.llama_batch_free(self._batch)
        self._ll.llama_free(self._context)
        self._ll.llama_model_free(self._model)


class BareProcess:
    """The bare loop in a process of its own, asked by lines of JSON."""

    def __init__(self, model: Path, streams: int, key_type: str = "f16", flash: str = "auto") -> None:
        module = [sys.executable, "-m", "tests.bench.bare_loop"]
        self._process = subprocess.Popen(
            [*module, "--model", str(model), "--streams", str(streams), "--key-type", key_type, "--flash", flash],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def decode(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Tokens/s."""
        return self._ask("decode", prompts=prompts, tokens=tokens)

    def prefill(self, prompt: Sequence[int], rows: int | None = None) -> float:
        """Seconds."""
        return self._ask("prefill", prompt=prompt, rows=rows)

    def call(self, rows: int, depth: int, repetitions: int, streams: int = 1) -> float:
        """Seconds."""
        return self._ask("call", rows=rows, depth=depth, repetitions=repetitions, streams=streams)

    def _ask(self, method: str, **arguments: Any) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bare_loop", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--key-type", choices=KEY_TYPES, default="f16")
    parser.add_argument("--flash", choices=FLASH_TYPES, default="auto")
    options = parser.parse_args()
    limit_threads()  # as a worker does, and before llama.cpp is loaded
    bare = BareLoop(options.model, options.streams, options.key_type, options.flash)
    methods: dict[str, Callable[..., float]] = {"decode": bare.decode, "prefill": bare.prefill, "call": bare.call}
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(methods[method](**arguments), flush=True)
    bare.close()


if __name__ == "__main__":
    main()
