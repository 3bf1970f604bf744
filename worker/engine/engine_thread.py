"""The thread that llama.cpp runs in: it loads the model, makes step after step, and unloads it."""

import asyncio
import contextlib
import contextvars
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
import structlog

from atelier.launch import LaunchSpec
from worker.engine.batching.batcher import Batcher
from worker.engine.batching.sequence import Sequence
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.embedding import Embedder, Tokens, Vectors, batch_tokens, batches, longest_input
from worker.engine.interface import Description, Emitted, SequenceFigures
from worker.engine.model.context import fixed_threads
from worker.engine.model.loaded_model import LlamaLog
from worker.engine.model.vocabulary import Vocabulary
from worker.engine.model_loading import LoadedEngine, load_model
from worker.engine.prompt.prompt_preparation import Preparer
from worker.engine.prompt.ranking import PairReader

T = TypeVar("T")

LISTING_SECONDS = 1.0  # that a list of the sequences waits for a call to end

_log = structlog.get_logger(__name__)


class EngineThread:
    """Owns the model, its contexts and the batcher; no other thread touches them.

    Other threads put jobs into its inbox, which it empties between steps.
    """

    def __init__(self, spec: LaunchSpec, publish: Callable[[Seq[Emitted]], None]) -> None:
        """`publish` is called on the running event loop, once per step."""
        self._spec = spec
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        context = contextvars.copy_context()  # the log's fields
        self._thread = threading.Thread(target=context.run, args=[self._run], name="llama.cpp", daemon=True)
        self._llama_log = LlamaLog()
        self._outcome: Future[LoadedEngine] = Future()
        self._loaded: LoadedEngine | None = None
        self._embedder: Embedder | None = None
        self._jobs: deque[Callable[[], None]] = deque()  # the thread's own
        self._expected = 0  # calls that are being prepared; the event loop's own
        self.steps = 0

    async def load(self, on_progress: Callable[[float], None]) -> Description:
        """Start the thread and load the model. Raises LoadFailed."""
        self._on_progress = on_progress
        self._thread.start()
        self._loaded = await asyncio.shield(asyncio.wrap_future(self._outcome))
        return self._loaded.description

    @property
    def _ready(self) -> LoadedEngine:
        assert self._loaded is not None, "the model is not loaded"
        return self._loaded

    @property
    def vocabulary(self) -> Vocabulary:
        """Read-only, so any thread may use it."""
        return self._ready.model.vocabulary

    @property
    def preparer(self) -> Preparer:
        """Prepares requests for this thread, on another one."""
        return self._ready.preparer

    @property
    def pair_reader(self) -> PairReader:
        """Read-only, so any thread may use it."""
        model = self._ready.model
        return PairReader(model.vocabulary, model.rerank_template)

    @property
    def active(self) -> int:
        return self._batcher.active if self._batcher else 0

    @property
    def _batcher(self) -> Batcher | None:
        """None while the model is loaded, and for models that complete no prompts."""
        return self._loaded.batcher if self._loaded else None

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """The block prepares a call, whose sequences are added after it."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1

    def add(self, sequences: Seq[Sequence]) -> None:
        assert self._ready.batcher is not None
        self._inbox.put(functools.partial(self._ready.batcher.add, sequences))

    async def sequences(self) -> list[SequenceFigures]:
        """As they are between two steps; while a long call is in progress, as they were before it."""
        if (batcher := self._ready.batcher) is None:
            return []
        current = self._between_steps(lambda: batcher.figures(time.monotonic()))
        await asyncio.wait([current], timeout=LISTING_SECONDS)
        return current.result() if current.done() else batcher.figures_in_step(time.monotonic())

    @property
    def _tier(self) -> CacheTier | None:
        return self._batcher.tier if self._batcher else None

    @property
    def cache_used(self) -> int:
        """Bytes of host memory that saved states take."""
        return self._tier.ram_used if self._tier else 0

    @property
    def cache_limit(self) -> int:
        """Bytes that they may take."""
        return self._tier.ram_limit if self._tier else 0

    async def release_cache(self, size: int) -> int:
        """Free so many bytes of saved states, between two steps; returns what was freed."""
        if (tier := self._tier) is None:
            return 0
        return await self._between_steps(lambda: tier.make_way(size))

    @property
    def longest_input(self) -> int:
        """Tokens of the longest text that `pool` accepts."""
        return longest_input(self._ready.model)

    async def pool(self, inputs: Seq[Tokens]) -> Vectors:
        """The pooled output of each input: an embedding, or a reranker's score."""
        room = batch_tokens(self._ready.model)
        rows = [await self._call(functools.partial(self._pool, batch)) for batch in batches(inputs, room)]
        return np.concatenate(rows)

    def review_call(self) -> None:
        """A call was cancelled, or is past a deadline: end the computation in progress if it has no other."""
        if self._batcher is not None:
            self._batcher.running_call.review()

    async def close(self) -> None:
        self._stopping.set()
        if self._batcher is not None:
            self._batcher.running_call.stop()
        self._inbox.put(lambda: None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _between_steps(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """Run a job on the thread when it empties its inbox: one that takes no time."""
        future: Future[T] = Future()
        self._inbox.put(lambda: _settle(future, job))
        return asyncio.wrap_future(future)

    async def _call(self, job: Callable[[], T]) -> T:
        """Run a job on the thread as a step of its own: streams wait for one job at a time."""
        future: Future[T] = Future()
        self._inbox.put(lambda: self._jobs.append(lambda: _settle(future, job)))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        try:
            loaded = load_model(self._spec, self._llama_log, self._progress)
        except BaseException as error:
            self._outcome.set_exception(error)
            return
        self._outcome.set_result(loaded)
        try:
            self._work(loaded)
        except Exception:
            # The state of llama.cpp is unknown now: only a new process is safe.
            _log.exception("engine_failed")
            self._loop.call_soon_threadsafe(_exit)
        finally:
            if self._embedder is not None:
                self._embedder.close()
            loaded.close()

    def _progress(self, fraction: float) -> bool:
        self._loop.call_soon_threadsafe(self._on_progress, fraction)
        return not self._stopping.is_set()

    def _work(self, loaded: LoadedEngine) -> None:
        batcher = loaded.batcher
        while not self._stopping.is_set():
            self._empty_inbox(wait=not self._jobs and (batcher is None or batcher.idle))
            if batcher is not None and not self._jobs and (seconds := batcher.gathering(expected=self._expected > 0)):
                self._await_job(seconds)
                continue
            if self._jobs:
                self._jobs.popleft()()
                self.steps += 1
            if batcher is not None and not batcher.idle:
                emitted = batcher.step()
                self.steps += 1
                self._send(emitted)
        if batcher is not None:
            self._send(batcher.abandon())
            batcher.close()

    def _empty_inbox(self, *, wait: bool) -> None:
        if wait:
            self._inbox.get()()
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()

    def _await_job(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self._inbox.get(timeout=seconds)()

    def _send(self, emitted: list[Emitted]) -> None:
        if emitted:
            self._loop.call_soon_threadsafe(self._publish, emitted)

    def _pool(self, batch: Seq[Tokens]) -> Vectors:
        if self._embedder is None:
            self._embedder = Embedder(self._ready.model, self._llama_log, fixed_threads(self._spec))
        return self._embedder.pool(batch)


def _settle(future: "Future[T]", job: Callable[[], T]) -> None:
    """Run the job, and set the future to its result or error."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)


def _exit() -> None:
    raise SystemExit(1)
