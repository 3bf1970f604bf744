"""From a launch's settings to a model that can work: devices, weights, context, batcher."""

from collections.abc import Callable
from dataclasses import dataclass

import llama_cpp
from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed
from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.batcher import Batcher
from worker.engine.context import Context, generation_params
from worker.engine.costs import Costs
from worker.engine.devices import gpus, require_device, visible_devices
from worker.engine.drafting import Speculation
from worker.engine.exactness import Exactness, exactness
from worker.engine.interface import Description
from worker.engine.llama_log import LlamaLog
from worker.engine.lookup import LookupDrafter
from worker.engine.model import Model
from worker.engine.prepare import Preparer
from worker.engine.runs import Run
from worker.engine.slices import TAIL, Slicing

CPU_GRID = 64  # tokens of a prompt slice: about a quarter of a second of a small machine's time
GPU_SHORTEST = 128  # tokens of a prompt slice that ends with its message
CPU_COPY_SPEED = 4e9  # bytes/s
GPU_COPY_SPEED = 200e9  # bytes/s


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the engine's thread works with. `close` frees it all."""

    model: Model
    context: Context | None  # None: the model only makes embeddings
    batcher: Batcher | None
    preparer: Preparer
    description: Description

    def close(self) -> None:
        self.preparer.close()
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
        _check_speculation(model, load)
        on_device = [device.name for device in gpus(devices)] if model.gpu_layers else ["CPU"]
        description = _describe(model, load, on_device)
        context = None if model.only_embeds else _context(model, load, log)
    except BaseException:
        model.close()
        raise
    exact = exactness(load, model.metadata("general.file_type"), on_gpu=model.gpu_layers > 0)
    reusable = model.can_cut and not load.kv_unified
    slicing = _slicing(model, load, exact)
    return Loaded(
        model=model,
        context=context,
        batcher=_batcher(model, context, load, exact, reuse=reusable) if context else None,
        preparer=_preparer(model, description, slicing, reusable=reusable),
        description=description,
    )


def _check_speculation(model: Model, load: Load) -> None:
    if load.speculation == "off":
        return
    if model.only_embeds:
        raise LoadFailed("This model completes no prompts, so there is nothing to guess: load it with speculation off.")
    if not model.can_cut:
        raise LoadFailed(
            "This model keeps a recurrent state or a sliding window, from which a wrong guess cannot be taken back: "
            "load it with speculation off."
        )


def _context(model: Model, load: Load, log: LlamaLog) -> Context:
    """Warm: every weight is touched once, so that the first request does not pay for it."""
    context = Context(model, generation_params(load, on_gpu=model.gpu_layers > 0), log)
    context.decode_runs([Run(slot=0, tokens=[0], start=0, silent=0)])
    context.clear()
    return context


def _batcher(model: Model, context: Context, load: Load, exact: Exactness, *, reuse: bool) -> Batcher:
    return Batcher(
        context,
        slots=load.parallel,
        costs=Costs(_copy_seconds(model, load)),
        reuse=reuse,
        exact=exact,
        batch_size=load.batch_size,
        speculation=Speculation(LookupDrafter(), load.draft_tokens) if load.speculation == "prompt_lookup" else None,
        unified_capacity=load.context_length if load.kv_unified else None,
    )


def _copy_seconds(model: Model, load: Load) -> float:
    """Of a slot's whole cache, at the speed of the memory that it is in."""
    cells = 0 if load.kv_unified else load.context_length
    return cells * model.kv_bytes_per_token / (GPU_COPY_SPEED if model.gpu_layers else CPU_COPY_SPEED)


def _preparer(model: Model, description: Description, slicing: Slicing, *, reusable: bool) -> Preparer:
    return Preparer(model.vocabulary, description.chat_template, description.context_length, slicing, reusable=reusable)


def _slicing(model: Model, load: Load, exact: Exactness) -> Slicing:
    """Short slices that are computed together, where that changes nothing; long ones otherwise.

    A last slice is up to TAIL longer than the grid, and must fit into one compute graph. A GPU is
    idle for most of a short slice, so there messages share slices.
    """
    if exact.slices:
        return Slicing(TAIL)
    largest = min(load.batch_size, load.ubatch_size) - TAIL
    on_gpu = model.gpu_layers > 0
    grid = largest if on_gpu else min(CPU_GRID, largest)
    shortest = min(GPU_SHORTEST, largest) if on_gpu else TAIL
    return Slicing(grid, shortest, model.vocabulary.is_control)


def _describe(model: Model, load: Load, devices: list[str]) -> Description:
    return Description(
        engine="llama.cpp",
        version=f"llama-cpp-python {llama_cpp.__version__}",
        context_length=load.context_length,
        parallel=load.parallel,
        gpu_layers=model.gpu_layers,
        devices=devices,
        vocabulary_size=model.vocabulary.size,
        embedding_length=model.pooled_length if model.can_embed else model.embedding_length,
        can_generate=not model.only_embeds,
        can_embed=model.can_embed,
        can_rerank=model.can_rerank,
        can_infill=model.vocabulary.infill_tokens is not None,
        chat_template=model.chat_template,
    )
