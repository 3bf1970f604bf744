"""`python -m tests.bench.decode_alone`: the engine's decoding beside a bare loop over llama_decode and its samplers.

In turns, on the same prompts, settings and number of tokens; neither server nor gateway nor client. Counted are the
tokens after every sequence has its first. The bare loop keeps llama.cpp's own defaults, which are not reproducible,
and has a process of its own: OpenMP's threads wait differently where there are more of them than cores.
"""

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from atelier.generation_types import Finished
from atelier.launch import LaunchSpec
from atelier.settings import Load
from atelier.settings.groups import Inference
from tests.bench.machine import physical_cores
from tests.bench.percentiles import median, ratio
from tests.bench.words import Words
from tests.support.models.starter_model import starter_file
from worker.__main__ import limit_threads
from worker.engine.interface import Delta, Emitted, Failed, Request, Source

CONTEXT = 4096  # tokens of each sequence
WORDS = 51
SAMPLING = Inference(repeat_penalty=1.1, ignore_eos=True)


@dataclass(slots=True)
class Window:
    """From when every sequence has its first token until one has its last."""

    streams: int
    tokens: dict[int, int] = field(default_factory=dict)  # by sequence
    began: float | None = None
    counted: int = 0
    ended: float | None = None

    def note(self, sequence: int, tokens: int) -> None:
        everyone_had = len(self.tokens) == self.streams
        self.tokens[sequence] = self.tokens.get(sequence, 0) + tokens
        if everyone_had and self.ended is None:
            self.counted += tokens
        elif len(self.tokens) == self.streams and self.began is None:
            self.began = time.monotonic()

    def end(self) -> None:
        if self.ended is None:
            self.ended = time.monotonic()

    @property
    def tokens_per_second(self) -> float:
        assert self.began is not None
        assert self.ended is not None
        return self.counted / (self.ended - self.began)


class BareLoop:
    """One llama_context and a llama.cpp sampler chain for each sequence."""

    def __init__(self, model: Path, streams: int, threads: int) -> None:
        from llama_cpp import llama_cpp as ll

        self._ll = ll
        self._streams = streams
        self._model = ll.llama_model_load_from_file(str(model).encode(), ll.llama_model_default_params())
        params = ll.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = CONTEXT * streams, streams, False
        params.n_threads = params.n_threads_batch = threads
        self._context = ll.llama_init_from_model(self._model, params)
        self._batch = ll.llama_batch_init(ll.llama_n_batch(self._context), 0, 1)

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Tokens/s."""
        ll = self._ll
        window = Window(self._streams)
        ll.llama_memory_clear(ll.llama_get_memory(self._context), False)
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

    def _decode(self, entries: Sequence[tuple[int, int, int, bool]]) -> None:
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

    def __init__(self, streams: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.decode_alone", "--bare", "--streams", str(streams)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Tokens/s."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def serve_bare(streams: int) -> None:
    """The process behind `BareProcess`."""
    bare = BareLoop(starter_file(), streams, physical_cores())
    for line in sys.stdin:
        print(bare.run(**json.loads(line)), flush=True)
    bare.close()


class Engine:
    """The worker's engine, without a worker process."""

    def __init__(self, model: Path, streams: int, threads: int) -> None:
        from worker.engine.engine import LlamaEngine

        load = Load(context_length=CONTEXT, parallel=streams, threads=threads)
        spec = LaunchSpec(
            instance_id="alone",
            engine="llama",
            model_path=str(model),
            load=load,
            address="",
            token="",
            grace_seconds=60,
        )
        self._streams = streams
        self._engine = LlamaEngine(spec, self._publish)
        self._window = Window(streams)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = 0
        self._calls = 0

    async def load(self) -> None:
        await self._engine.load(lambda _: None)

    async def tokens(self, text: str) -> list[int]:
        return [token for token, _ in await self._engine.tokenize(text, True)]

    async def run(self, prompts: Sequence[list[int]], tokens: int) -> float:
        """Tokens/s."""
        self._window, self._left = Window(self._streams), len(prompts)
        self._over = asyncio.get_running_loop().create_future()
        for prompt in prompts:
            self._calls += 1
            sampling = replace(SAMPLING, max_tokens=tokens, seed=self._calls)
            self._engine.submit(Source(0, self._calls), Request(prompt, sampling))
        await self._over
        return self._window.tokens_per_second

    def _publish(self, emitted: Sequence[Emitted]) -> None:
        for source, event in emitted:
            match event:
                case Delta():
                    self._window.note(source.call, event.tokens)
                case Failed():
                    self._over.set_exception(event.error)
                case Finished():
                    self._window.end()
                    self._left -= 1
                    if not self._left:
                        self._over.set_result(None)

    async def close(self) -> None:
        await self._engine.close()


async def measure(options: Any) -> None:
    model, threads = starter_file(), physical_cores()
    engine, bare = Engine(model, options.streams, threads), BareProcess(options.streams)
    await engine.load()
    rounds = []
    for number in range(options.rounds):
        prompts = [
            await engine.tokens(f"Go on with a long story about {Words(number, each).draw(WORDS)}")
            for each in range(options.streams)
        ]
        loop = bare.run(prompts, options.tokens)
        rounds.append((await engine.run(prompts, options.tokens), loop))
        print(f"round {number + 1}: engine {rounds[-1][0]:.1f} tokens/s, bare loop {loop:.1f}", flush=True)
    ours, theirs = (median(column) for column in zip(*rounds, strict=True))
    print(f"{options.streams} streams, medians: engine {ours:.1f} tokens/s, bare loop {theirs:.1f}")
    print(f"median of the rounds' ratios: {median([ratio(*each) for each in rounds]):.2f}")
    bare.close()
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.decode_alone", description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    limit_threads()  # as a worker does, and before llama.cpp is loaded
    if options.bare:
        serve_bare(options.streams)
    else:
        asyncio.run(measure(options))


if __name__ == "__main__":
    main()
