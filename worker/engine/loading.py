"""From a launch's settings to a model that can work: devices, weights, context, batcher."""

from collections.abc import Callable
from dataclasses import dataclass

import llama_cpp
from llama_cpp import llama_cpp as ll

from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.batcher import Batcher
from worker.engine.context import Context, generation_params
from worker.engine.devices import gpus, require_device, visible_devices
from worker.engine.interface import Description
from worker.engine.llama_log import LlamaLog
from worker.engine.model import Model
from worker.engine.scheduler import SMALLEST_SLICE

CPU_GRID = 64  # tokens of a prompt slice: about a quarter of a second of a small machine's time


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the engine's thread works with. `close` frees it all."""

    model: Model
    context: Context | None  # None: the model only makes embeddings
    batcher: Batcher | None
    description: Description

    def close(self) -> None:
        if self.context is not None:
            self.context.close()
        self.model.close()


def load_model(spec: LaunchSpec, log: LlamaLog, on_progress: Callable[[float], bool]) -> Loaded:
    """Load the model, on the thread that will use it; LoadFailed when it cannot be.

    `on_progress` hears 0 to 1 and returns False to give up.
    """
    load = spec.load
    ll.llama_backend_init()
    devices = visible_devices()
    require_device(load.device, devices)
    model = Model(spec.model_path, load, log, on_progress)
    try:
        on_device = [device.name for device in gpus(devices)] if model.gpu_layers else ["CPU"]
        description = _describe(model, load, on_device)
        context = None if model.only_embeds else _context(model, load, log)
    except BaseException:
        model.close()
        raise
    return Loaded(model, context, _batcher(model, context, load) if context else None, description)


def _context(model: Model, load: Load, log: LlamaLog) -> Context:
    """Warm: every weight is touched once, so that the first request does not pay for it."""
    context = Context(model, generation_params(load), log)
    context.decode_prompt(0, [0], 0, "last")
    context.clear()
    return context


def _batcher(model: Model, context: Context, load: Load) -> Batcher:
    return Batcher(
        context,
        slots=load.parallel,
        grid=_slice_grid(load, on_gpu=model.gpu_layers > 0),
        reuse=model.can_reuse_prefix and not load.kv_unified,
        unified_capacity=load.context_length if load.kv_unified else None,
    )


def _slice_grid(load: Load, *, on_gpu: bool) -> int:
    """Tokens of a prompt slice. A last slice is up to 15 longer, and must fit into one compute graph."""
    largest = min(load.batch_size, load.ubatch_size) - SMALLEST_SLICE
    return largest if on_gpu else min(CPU_GRID, largest)


def _describe(model: Model, load: Load, devices: list[str]) -> Description:
    return Description(
        engine="llama.cpp",
        version=f"llama-cpp-python {llama_cpp.__version__}",
        context_length=load.context_length,
        parallel=load.parallel,
        gpu_layers=model.gpu_layers,
        devices=devices,
        vocabulary_size=model.vocabulary.size,
        embedding_length=model.embedding_length,
        can_generate=not model.only_embeds,
        can_embed=model.can_embed,
        chat_template=model.chat_template,
    )
