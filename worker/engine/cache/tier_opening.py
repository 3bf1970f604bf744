"""Whether an instance has a second tier of the prefix cache, and the tier with what earlier workers left."""

from pathlib import Path

import structlog

from atelier.launch import LaunchSpec
from worker.engine.cache.cache_tier import CacheTier
from worker.engine.cache.saved_states import SavedStates
from worker.engine.cache.state_directory import StateDirectory
from worker.engine.cache.state_identity import state_identity
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs

MIB = 2**20

_log = structlog.get_logger(__name__)


def open_tier(
    spec: LaunchSpec, context: Context, costs: Costs, *, reuse: bool, gpu_layers: int, devices: list[str]
) -> CacheTier | None:
    """The tier that the settings ask for; None, and a warning if they ask for one that cannot be.

    `reuse`: prompts stay in their slots' cache, and it may be cut at any token.
    """
    load = spec.load
    if not (load.cache_ram or load.cache_disk):
        return None
    if not reuse:
        why = "kv_unified shares one cache" if load.kv_unified else "this model's cache cannot be cut at a token"
        _log.warning("cache_tier_off", reason=f"{why}, so no beginning of a prompt is used again")
        return None
    states = SavedStates(load.cache_ram * MIB, load.cache_disk * MIB)
    if load.cache_disk:
        try:
            files = [spec.model_path, *(adapter.path for adapter in spec.adapters)]
            files += [spec.projector_path] if spec.projector_path else []
            identity = state_identity(files, load, gpu_layers=gpu_layers, devices=devices)
            return CacheTier(context, costs, states, StateDirectory(_directory(spec), identity))
        except OSError as error:
            _log.warning("cache_disk_off", directory=spec.cache_dir, reason=str(error))
    return CacheTier(context, costs, SavedStates(load.cache_ram * MIB, 0)) if load.cache_ram else None


def _directory(spec: LaunchSpec) -> Path:
    if not spec.cache_dir:
        raise FileNotFoundError("the launch names no directory")
    return Path(spec.cache_dir)
