"""Loads a model as its launch specification says: devices, weights, context, batcher."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import llama_cpp
from llama_cpp import llama_cpp as ll

from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.batching.batch_plan import BatchLimits
from worker.engine.batching.batcher import Batcher
from worker.engine.cache.cache_tier import open_tier
from worker.engine.cache.checkpoints import Checkpoints
from worker.engine.interface import Description
from worker.engine.model.batch_invariance import grouping
from worker.engine.model.context import FLASH, Context, decode_threads, open_context
from worker.engine.model.decode_costs import Costs
from worker.engine.model.llama_devices import LlamaDevice, gpus, require_device, visible_devices
from worker.engine.model.loaded_model import LlamaLog, LoadedModel
from worker.engine.model.lora import Adapters
from worker.engine.model.projector import ImageLimits, Projector
from worker.engine.model.rope_scaling import check_rope
from worker.engine.model.rpc_servers import add_rpc_devices, shares_of_devices
from worker.engine.prompt.prompt_preparation import Preparer
from worker.engine.prompt.prompt_slices import BLOCKS, TAIL, Slicing
from worker.engine.speculation.speculation_loading import open_speculation, usable_speculation
from worker.engine.speculation.step_times import StepTimes

CPU_GRID = 64  # tokens of a prompt slice: about a quarter of a second on a small machine
GPU_SHORTEST = 128  # tokens of a prompt slice that ends with its message
CPU_COPY_SPEED = 4e9  # bytes/s
GPU_COPY_SPEED = 200e9  # bytes/s


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """Everything that the engine's thread uses. `close` frees it."""

    model: LoadedModel
    batcher: Batcher | None  # None: the model only makes embeddings
    preparer: Preparer
    description: Description
    opened: ExitStack  # closes the contexts and the models

    def close(self) -> None:
        self.preparer.close()
        self.opened.close()


def load_model(spec: LaunchSpec, log: LlamaLog, on_progress: Callable[[float], bool]) -> LoadedEngine:
    """Load the model, on the thread that will use it. Raises LoadFailed.

    `on_progress` receives values from 0 to 1, and returns False to give up.
    """
    ll.llama_backend_init()
    counts = add_rpc_devices()
    devices = visible_devices()
    if counts:
        spec = _split_over_devices(spec, counts, devices)
    require_device(spec.load.device, devices)
    with ExitStack() as opened:
        model = opened.enter_context(
            closing(LoadedModel(spec.model_path, spec.load, log, on_progress, spec.architecture))
        )
        check_rope(spec.load, model.trained_length, model.rope_type)
        load = replace(model.load, speculation=usable_speculation(model, model.load))
        return _Loading(replace(spec, load=load), model, devices, log, on_progress, opened).finish()


def _split_over_devices(spec: LaunchSpec, counts: Sequence[int], devices: Sequence[LlamaDevice]) -> LaunchSpec:
    """With devices where the settings have RPC servers, of which one can have several devices."""
    free = [device.memory_free for device in devices if device.name.startswith("RPC")]
    split = shares_of_devices(spec.load.tensor_split, counts, free)
    main_gpu = sum(counts[: spec.load.main_gpu])
    return replace(spec, load=replace(spec.load, tensor_split=split, main_gpu=main_gpu))


def _used_gpus(load: Load, devices: list[LlamaDevice]) -> list[str]:
    names = [device.name for device in gpus(devices)]
    return names[load.main_gpu : load.main_gpu + 1] if load.split_mode == "none" else names


class _Loading:
    """Builds on a model what it needs to work. `opened` closes all of it."""

    def __init__(
        self,
        spec: LaunchSpec,
        model: LoadedModel,
        devices: list[LlamaDevice],
        log: LlamaLog,
        on_progress: Callable[[float], bool],
        opened: ExitStack,
    ) -> None:
        self._spec = spec
        self._load = spec.load
        self._model = model
        self._log = log
        self._on_progress = on_progress
        self._opened = opened
        self._on_gpu = model.gpu_layers > 0
        self._devices = _used_gpus(spec.load, devices) if self._on_gpu else ["CPU"]
        # Slots keep prompts after their sequences. The order of a window's cells depends on where a sequence was cut,
        # and with it the rounding of their sums.
        rounded = spec.load.reproducible and model.sliding_window > 0 and not model.can_cut
        self._reuse = not (spec.load.kv_unified or rounded)
        self._checkpoints = 0 if model.can_cut or not self._reuse else spec.load.checkpoints  # of a sequence
        self._grouping = grouping(
            spec.load, model.metadata("general.file_type"), on_gpu=self._on_gpu, adapted=bool(spec.adapters)
        )

    def finish(self) -> LoadedEngine:
        batcher = projector = None
        if not self._model.only_embeds:
            batcher, projector = self._completion_parts()
        description = self._describe(can_see=projector is not None)
        preparer = Preparer(
            self._model.vocabulary,
            description.chat_template,
            description.context_length,
            self._slicing(),
            self._spec.adapters,
            reusable=self._reuse,
            checkpoints=self._checkpoints,
            projector=projector,
        )
        return LoadedEngine(self._model, batcher, preparer, description, self._opened.pop_all())

    def _completion_parts(self) -> tuple[Batcher, Projector | None]:
        spec, load, model = self._spec, self._load, self._model
        context, costs = self._open_context(), Costs(self._copy_seconds())
        costs.warm(context.compute_rows, min(load.batch_size, load.ubatch_size, load.context_length))
        times = StepTimes(costs, joined=self._grouping.decode, unified=load.kv_unified)
        speculation = open_speculation(spec, model, times, self._log, self._on_progress, self._opened)
        tier = open_tier(
            spec,
            context,
            costs,
            reuse=self._reuse,
            whole=not model.can_cut_saved,
            gpu_layers=model.gpu_layers,
            devices=self._devices,
        )
        projector = self._open_projector()
        context.images_whole = projector is not None and projector.whole
        # One token of each slot must fit into a call.
        batch_size = max(load.batch_size, load.parallel)
        limits = BatchLimits(batch_size, min(load.ubatch_size, batch_size), load.prefill_pause)
        batcher = Batcher(
            context,
            slots=load.parallel,
            costs=costs,
            reuse=self._reuse,
            grouping=self._grouping,
            limits=limits,
            speculation=speculation,
            unified_capacity=load.context_length if load.kv_unified else None,
            checkpoints=None if model.can_cut_saved else Checkpoints(self._checkpoints, load.parallel),
            tier=tier,
        )
        return batcher, projector

    def _open_context(self) -> Context:
        spec = self._spec
        adapters = Adapters(self._model, spec.adapters, self._log) if spec.adapters else None
        threads = decode_threads(spec, self._grouping)
        return self._opened.enter_context(closing(open_context(self._model, self._load, self._log, threads, adapters)))

    def _open_projector(self) -> Projector | None:
        """The projector of a vision model; None for other models. Raises LoadFailed."""
        if self._spec.projector_path is None:
            return None
        load = self._load
        projector = Projector(
            self._spec.projector_path,
            self._model,
            self._log,
            ImageLimits(min(load.batch_size, load.ubatch_size), self._grid, load.context_length),
            threads=decode_threads(self._spec, self._grouping).count,
            flash=FLASH[load.flash_attention],
        )
        return self._opened.enter_context(closing(projector))

    def _copy_seconds(self) -> float:
        """To copy a slot's whole cache, estimated from the speed of the memory that it is in."""
        cells = 0 if self._load.kv_unified else self._load.context_length
        return cells * self._model.kv_bytes_per_token / (GPU_COPY_SPEED if self._on_gpu else CPU_COPY_SPEED)

    def _slicing(self) -> Slicing:
        """Short slices that are computed together, where that leaves results unchanged; otherwise long ones.

        A last slice is up to TAIL longer than the grid, and has to fit into one compute graph. A GPU is mostly idle
        during a short slice, so there messages share slices.
        """
        if self._grouping.slices:
            return BLOCKS
        shortest = min(GPU_SHORTEST, self._grid) if self._on_gpu else TAIL
        return Slicing(self._grid, shortest, self._model.vocabulary.is_control)

    @property
    def _grid(self) -> int:
        """Most tokens of a slice, without a rest."""
        largest = min(self._load.batch_size, self._load.ubatch_size) - TAIL
        return largest if self._on_gpu else min(CPU_GRID, largest)

    def _describe(self, *, can_see: bool) -> Description:
        model = self._model
        return Description(
            engine="llama.cpp",
            version=f"llama-cpp-python {llama_cpp.__version__}",
            context_length=self._load.context_length,
            parallel=self._load.parallel,
            gpu_layers=model.gpu_layers,
            devices=self._devices,
            vocabulary_size=model.vocabulary.size,
            embedding_length=model.pooled_length if model.can_embed else model.embedding_length,
            can_generate=not model.only_embeds,
            can_embed=model.can_embed,
            can_rerank=model.can_rerank,
            can_infill=model.vocabulary.infill_tokens is not None,
            can_see=can_see,
            chat_template=model.chat_template,
            speculation=self._load.speculation,
        )
