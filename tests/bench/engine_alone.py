"""The worker's engine in this process: without a worker, server, gateway and client."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from atelier.generation_types import Finished
from atelier.launch import LaunchSpec
from atelier.settings import Load
from atelier.settings.groups import Inference
from tests.bench.bare_loop import CONTEXT, SAMPLING
from tests.bench.decode_window import Window
from tests.bench.machine import physical_cores
from worker.__main__ import limit_threads
from worker.engine.interface import Delta, Emitted, Failed, Request, Source


def run_alone(measurement: Coroutine[Any, Any, None]) -> None:
    """Run a measurement of engines in this process, which is set up as a worker is."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    limit_threads()  # before llama.cpp is loaded
    asyncio.run(measurement)


class EngineAlone:
    def __init__(self, model: Path, streams: int, load: dict[str, Any]) -> None:
        """`load`: settings other than those that all engines here have."""
        from worker.engine.engine import LlamaEngine

        settings = Load(**{"context_length": CONTEXT, "parallel": streams, "threads": physical_cores(), **load})
        spec = LaunchSpec(
            instance_id="alone",
            engine="llama",
            model_path=str(model),
            load=settings,
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

    async def decode(self, prompts: Sequence[list[int]], tokens: int, sampling: Inference = SAMPLING) -> float:
        """Tokens/s, of a sequence for each prompt."""
        await self._run(prompts, tokens, sampling)
        return self._window.tokens_per_second

    async def prefill(self, prompts: Sequence[list[int]]) -> float:
        """Seconds until all prompts, which come at once, have their first token."""
        started = time.monotonic()
        await self._run(prompts, 1, SAMPLING)
        return time.monotonic() - started

    async def _run(self, prompts: Sequence[list[int]], tokens: int, sampling: Inference) -> None:
        self._window, self._left = Window(len(prompts)), len(prompts)
        self._over = asyncio.get_running_loop().create_future()
        for prompt in prompts:
            self._calls += 1
            sampled = replace(sampling, max_tokens=tokens, seed=self._calls)
            self._engine.submit(Source(0, self._calls), Request(prompt, sampled))
        await self._over

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
