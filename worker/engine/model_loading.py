"""Loads a model as its launch specification says: devices, weights, context, batcher."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import llama_cpp
from llama_cpp import llama_cpp as ll

from atelier.adapters import Adapter
from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.batching.batcher import Batcher
from worker.engine.cache.cache_tier import CacheTier, open_tier
from worker.engine.interface import Description
from worker.engine.model.batch_invariance import Exactness, exactness
from worker.engine.model.context import Context, open_context
from worker.engine.model.context_params import FLASH, decode_threads
from worker.engine.model.decode_costs import Costs
from worker.engine.model.llama_devices import Device, gpus, require_device, visible_devices
from worker.engine.model.loaded_model import LlamaLog, Model
from worker.engine.model.lora import Adapters
from worker.engine.model.projector import Projector, Room
from worker.engine.model.rpc_servers import add_rpc_devices, shares_of_devices
from worker.engine.prompt.prompt_preparation import Preparer
from worker.engine.prompt.prompt_slices import BLOCKS, TAIL, Slicing
from worker.engine.speculation.drafting import Speculation
from worker.engine.speculation.speculation_loading import check_speculation, open_speculation

CPU_GRID = 64  # tokens of a prompt slice: about a quarter of a second on a small machine
GPU_SHORTEST = 128  # tokens of a prompt slice that ends with its message
CPU_COPY_SPEED = 4e9  # bytes/s
GPU_COPY_SPEED = 200e9  # bytes/s


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that the engine's thread uses. `close` frees it."""

    model: Model
    batcher: Batcher | None  # None: the model only makes embeddings
    preparer: Preparer
    description: Description
    opened: ExitStack  # closes the contexts and the models

    def close(self) -> None:
        self.preparer.close()
        self.opened.close()


def load_model(spec: LaunchSpec, log: LlamaLog, on_progress: Callable[[float], bool]) -> Loaded:
    """Load the model, on the thread that will use it. Raises LoadFailed.

    `on_progress` receives values from 0 to 1, and returns False to give up.
    """
    ll.llama_backend_init()
    counts = add_rpc_devices()
    devices = visible_devices()
    if counts:
        spec = _split_over_devices(spec, counts, devices)
    load = spec.load
    require_device(load.device, devices)
    with ExitStack() as opened:
        model = opened.enter_context(closing(Model(spec.model_path, load, log, on_progress)))
        check_speculation(model, load)
        on_device = [device.name for device in gpus(devices)] if model.gpu_layers else ["CPU"]
        file_type, on_gpu = model.metadata("general.file_type"), model.gpu_layers > 0
        exact = exactness(load, file_type, on_gpu=on_gpu, adapted=bool(spec.adapters))
        batcher = projector = None
        if not model.only_embeds:
            adapters = Adapters(model, spec.adapters, log) if spec.adapters else None
            context = opened.enter_context(
                closing(open_context(model, load, log, decode_threads(spec, exact), adapters))
            )
            costs = Costs(_copy_seconds(model, load))
            speculation = open_speculation(spec, model, costs, log, on_progress, opened)
            tier = open_tier(
                spec, context, costs, reuse=_reuses(model, load), gpu_layers=model.gpu_layers, devices=on_device
            )
            projector = _open_projector(spec, model, exact, log, opened)
            context.images_whole = projector is not None and projector.whole
            batcher = _batcher(model, context, costs, load, exact, speculation, tier)
        description = replace(_describe(model, load, on_device), can_see=projector is not None)
        slicing, reuses = _slicing(model, load, exact), _reuses(model, load)
        preparer = _preparer(model, description, slicing, spec.adapters, projector, reusable=reuses)
        return Loaded(model, batcher, preparer, description, opened.pop_all())


def _split_over_devices(spec: LaunchSpec, counts: Sequence[int], devices: Sequence[Device]) -> LaunchSpec:
    """With shares for devices: the settings have one for each RPC server, and a server can have several devices."""
    free = [device.memory_free for device in devices if device.name.startswith("RPC")]
    return replace(spec, load=replace(spec.load, tensor_split=shares_of_devices(spec.load.tensor_split, counts, free)))


def _reuses(model: Model, load: Load) -> bool:
    return model.can_cut and not load.kv_unified


def _batcher(
    model: Model,
    context: Context,
    costs: Costs,
    load: Load,
    exact: Exactness,
    speculation: Speculation | None,
    tier: CacheTier | None,
) -> Batcher:
    return Batcher(
        context,
        slots=load.parallel,
        costs=costs,
        reuse=_reuses(model, load),
        exact=exact,
        batch_size=load.batch_size,
        speculation=speculation,
        unified_capacity=load.context_length if load.kv_unified else None,
        tier=tier,
    )


def _copy_seconds(model: Model, load: Load) -> float:
    """To copy a slot's whole cache, estimated from the speed of the memory that it is in."""
    cells = 0 if load.kv_unified else load.context_length
    return cells * model.kv_bytes_per_token / (GPU_COPY_SPEED if model.gpu_layers else CPU_COPY_SPEED)


def _preparer(
    model: Model,
    description: Description,
    slicing: Slicing,
    adapters: Sequence[Adapter],
    projector: Projector | None,
    *,
    reusable: bool,
) -> Preparer:
    return Preparer(
        model.vocabulary,
        description.chat_template,
        description.context_length,
        slicing,
        adapters,
        reusable=reusable,
        projector=projector,
    )


def _open_projector(
    spec: LaunchSpec, model: Model, exact: Exactness, log: LlamaLog, opened: ExitStack
) -> Projector | None:
    """The projector of a vision model; None for other models. Raises LoadFailed."""
    if spec.projector_path is None:
        return None
    load = spec.load
    projector = Projector(
        spec.projector_path,
        model,
        log,
        Room(min(load.batch_size, load.ubatch_size), _grid(model, load), load.context_length),
        threads=decode_threads(spec, exact).count,
        flash=FLASH[load.flash_attention],
    )
    return opened.enter_context(closing(projector))


def _slicing(model: Model, load: Load, exact: Exactness) -> Slicing:
    """Short slices that are computed together, where that leaves results unchanged; otherwise long ones.

    A last slice is up to TAIL longer than the grid, and has to fit into one compute graph. A GPU is mostly idle
    during a short slice, so there messages share slices.
    """
    if exact.slices:
        return BLOCKS
    grid = _grid(model, load)
    shortest = min(GPU_SHORTEST, grid) if model.gpu_layers else TAIL
    return Slicing(grid, shortest, model.vocabulary.is_control)


def _grid(model: Model, load: Load) -> int:
    """Most tokens of a slice, without a rest."""
    largest = min(load.batch_size, load.ubatch_size) - TAIL
    return largest if model.gpu_layers else min(CPU_GRID, largest)


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
