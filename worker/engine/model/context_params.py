"""The parameters of a llama.cpp context: load settings as llama_context_params, and how many threads compute."""

from llama_cpp import llama_cpp as ll

from atelier.hardware import available_cores, physical_cores
from atelier.launch import LaunchSpec
from atelier.settings.groups import Load
from worker.engine.model.batch_invariance import Exactness, key_type

_KV_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip  # enum ggml_type
FLASH = {
    None: ll.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: ll.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: ll.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class Threads:
    """A fixed number of threads, or one for each physical core that this thread may use at the moment.

    The registry moves a worker between cores as other workers start and stop. Threads that share a core wait for one
    another at every operation of every layer. Where the number of threads changes the order of additions, and with it
    the text, it has to be fixed.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._cores: frozenset[int] = frozenset()
        self._count = 1

    @property
    def count(self) -> int:
        if self._fixed is not None:
            return self._fixed
        if (cores := available_cores()) != self._cores:
            self._cores, self._count = cores, len(physical_cores(cores))
        return self._count


def decode_threads(spec: LaunchSpec, exact: Exactness) -> Threads:
    """For completing prompts. With one path through attention and one kernel, any number gives the same text."""
    return Threads(spec.load.threads) if exact.decode else fixed_threads(spec)


def fixed_threads(spec: LaunchSpec) -> Threads:
    """For results that depend on the number: as many as the worker has when it runs alone."""
    return Threads(spec.load.threads or spec.threads or Threads().count)


def generation_params(load: Load, *, on_gpu: bool) -> ll.llama_context_params:
    """llama_context_params for completing prompts with these settings."""
    params = ll.llama_context_default_params()
    params.n_ctx = load.context_length * (1 if load.kv_unified else load.parallel)
    params.n_seq_max = load.parallel
    params.n_batch = max(load.batch_size, load.parallel)  # one token of each sequence must fit
    params.n_ubatch = min(load.ubatch_size, load.batch_size)
    params.n_threads = params.n_threads_batch = load.threads or Threads().count
    params.flash_attn_type = FLASH[load.flash_attention]
    params.type_k = _KV_TYPES[key_type(load, on_gpu=on_gpu)]
    params.type_v = _KV_TYPES[load.kv_type]
    params.offload_kqv = load.offload_kv
    params.kv_unified = load.kv_unified
    params.swa_full = False  # layers with a sliding window hold no more than that: their cache is never cut
    params.no_perf = True
    return params
