"""The thread that llama.cpp runs in: load, step after step, unload."""

import asyncio
import contextlib
import functools
import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import structlog
from llama_cpp import llama_cpp as ll

from atelier.errors import AtelierError
from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.batcher import Batcher
from worker.engine.context import Context, generation_params
from worker.engine.devices import gpus, require_device, visible_devices
from worker.engine.embedding import Embedder
from worker.engine.interface import Description, Emitted
from worker.engine.llama_log import LlamaLog
from worker.engine.model import Model
from worker.engine.scheduler import SMALLEST_SLICE
from worker.engine.sequence import Sequence as Choice

CPU_GRID = 64  # tokens of a prompt slice: about a quarter of a second of a small machine's time
T = TypeVar("T")

_log = structlog.get_logger(__name__)


class EngineThread:
    """Owns the model, its contexts and the batcher; nothing else touches them.

    Others put jobs into its inbox, which it empties between steps.
    """

    def __init__(self, spec: LaunchSpec, publish: Callable[[Sequence[Emitted]], None]) -> None:
        """`publish` is called on the running event loop, once per step."""
        self._spec = spec
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)
        self._loaded: Future[Description] = Future()
        self._batcher: Batcher | None = None
        self._embedder: Embedder | None = None
        self.steps = 0
        self.model: Model | None = None  # for its vocabulary, which any thread may read

    async def load(self, on_progress: Callable[[float], None]) -> Description:
        self._on_progress = on_progress
        self._thread.start()
        return await asyncio.wrap_future(self._loaded)

    @property
    def active(self) -> int:
        return self._batcher.active if self._batcher else 0

    def add(self, choices: Sequence[Choice]) -> None:
        self._inbox.put(lambda: self._batcher.add(choices) if self._batcher else None)

    async def embed(self, inputs: list[list[int]]) -> list[list[float]]:
        return [await self._call(functools.partial(self._embed, tokens)) for tokens in inputs]

    async def close(self) -> None:
        self._stopping.set()
        self._inbox.put(lambda: None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def _call(self, job: Callable[[], T]) -> T:
        """Run a job on the thread, between two steps."""
        future: Future[T] = Future()
        self._inbox.put(lambda: _settle(future, job))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        try:
            description = self._load()
        except BaseException as error:
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(description)
        try:
            self._work()
        except Exception:
            # The state of llama.cpp is unknown now: a new process is the way out.
            _log.critical("engine_failed", traceback=traceback.format_exc())
            self._loop.call_soon_threadsafe(_exit)
        finally:
            self._unload()

    def _load(self) -> Description:
        log = self._llama_log = LlamaLog()
        load = self._spec.load
        ll.llama_backend_init()
        devices = visible_devices()
        require_device(load.device, devices)
        model = self.model = Model(self._spec.model_path, load, log, self._progress)
        if not model.only_embeds:
            self._context = Context(model, generation_params(load), log)
            self._warm_up(self._context)
            self._batcher = Batcher(
                self._context,
                slots=load.parallel,
                grid=_slice_grid(load, on_gpu=model.gpu_layers > 0),
                reuse=model.can_reuse_prefix and not load.kv_unified,
                unified_capacity=load.context_length if load.kv_unified else None,
            )
        return Description(
            engine="llama.cpp",
            version=_version(),
            context_length=load.context_length,
            parallel=load.parallel,
            gpu_layers=model.gpu_layers,
            devices=[d.name for d in gpus(devices)] if model.gpu_layers else ["CPU"],
            vocabulary_size=model.vocabulary.size,
            embedding_length=model.embedding_length,
            can_generate=not model.only_embeds,
            can_embed=True,
            chat_template=model.chat_template,
        )

    def _progress(self, fraction: float) -> bool:
        self._loop.call_soon_threadsafe(self._on_progress, fraction)
        return not self._stopping.is_set()

    @staticmethod
    def _warm_up(context: Context) -> None:
        """Touch every weight once, so that the first request does not pay for it."""
        context.decode_prompt(0, [0], 0, "last")
        context.clear()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._empty_inbox(wait=self._batcher is None or self._batcher.idle)
            if self._batcher is not None and not self._batcher.idle:
                emitted = self._batcher.step()
                self.steps += 1
                self._send(emitted)
        if self._batcher is not None:
            self._send(self._batcher.abandon())

    def _empty_inbox(self, *, wait: bool) -> None:
        if wait:
            self._inbox.get()()
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()

    def _send(self, emitted: list[Emitted]) -> None:
        if emitted:
            self._loop.call_soon_threadsafe(self._publish, emitted)

    def _embed(self, tokens: list[int]) -> list[float]:
        assert self.model is not None
        if self._embedder is None:
            self._embedder = Embedder(self.model, self._spec.load, self._llama_log)
        return self._embedder.embed(tokens)

    def _unload(self) -> None:
        if self._embedder is not None:
            self._embedder.close()
        if self._batcher is not None:
            self._context.close()
        if self.model is not None:
            self.model.close()


def _slice_grid(load: Load, *, on_gpu: bool) -> int:
    """Tokens of a prompt slice. A last slice is up to 15 longer, and must fit into one compute graph."""
    largest = min(load.batch_size, load.ubatch_size) - SMALLEST_SLICE
    return largest if on_gpu else min(CPU_GRID, largest)


def _settle(future: "Future[T]", job: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except AtelierError as error:
        future.set_exception(error)


def _exit() -> None:
    raise SystemExit(1)


def _version() -> str:
    import llama_cpp

    return f"llama-cpp-python {llama_cpp.__version__}"
