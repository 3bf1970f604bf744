"""The loaded model: its weights and properties in llama.cpp. Used on the engine's thread."""

import ctypes
from collections import deque
from collections.abc import Callable

import structlog
from llama_cpp import llama_cpp as ll

from atelier.errors import InsufficientMemory, LoadFailed
from atelier.settings.groups import Load
from worker.engine.model.llama_devices import gpus, visible_devices
from worker.engine.model.model_params import ALL_LAYERS, ModelParams
from worker.engine.model.rope_scaling import with_rope_scale
from worker.engine.model.vocabulary import Vocabulary

_log = structlog.get_logger("llama.cpp")

NO_POOLING = ("", "-1", "0")  # enum llama_pooling_type
POOLING_RANK = "4"
KEPT_LINES = 8  # of llama.cpp's log
_INFO, _WARN, _ERROR = 2, 3, 4  # enum ggml_log_level: none, debug, info, warn, error, cont
_OUT_OF_MEMORY = ("failed to allocate", "unable to allocate", "out of memory", "cannot allocate")


class LlamaLog:
    """Passes llama.cpp's log on, and keeps its last complaints to explain a failed load.

    Has to outlive all of llama.cpp's calls: it owns the callback that C calls.
    """

    def __init__(self) -> None:
        self._complaints: deque[str] = deque(maxlen=KEPT_LINES)
        self._interrupted: list[Callable[[], bool]] = []
        self.callback = ll.llama_log_callback(self._receive)
        ll.llama_log_set(self.callback, ctypes.c_void_p(0))

    def expect_failures(self, interrupted: Callable[[], bool]) -> None:
        """While this returns True, calls end on request: their failures are no complaints."""
        self._interrupted.append(interrupted)

    def complaints(self) -> str:
        """The last warnings and errors, one per line."""
        return "\n".join(self._complaints)

    def _receive(self, level: int, text: bytes, _data: object) -> None:
        line = text.decode(errors="replace").strip()
        if level in (_WARN, _ERROR) and line and not any(check() for check in self._interrupted):
            self._complaints.append(line)
            _log.warning("llama_cpp", line=line)
        elif line and level in (_INFO, _WARN, _ERROR):
            _log.debug("llama_cpp", line=line)


class LoadedModel:
    """Owns the llama_model. `close` frees it.

    `load`: the settings that it was loaded with, completed with what depends on its file.
    """

    def __init__(
        self, path: str, load: Load, log: LlamaLog, on_progress: Callable[[float], bool], architecture: str = ""
    ) -> None:
        """Load the file. Raises LoadFailed. `on_progress` returns False to give up.

        `architecture`: the file's; needed where settings override its metadata.
        """
        params = ModelParams(load, architecture, on_progress)
        self.handle = ll.llama_model_load_from_file(path.encode(), params.value)
        if not self.handle:
            raise load_error(log, "The model could not be loaded")
        self.vocabulary = Vocabulary(self.handle)
        self._gpu_layers_wanted = params.value.n_gpu_layers
        # In a unified cache, cells that have left one sequence's window are used again by others.
        self._keeps_windows = load.swa_full and not load.kv_unified
        # Read once: llama.cpp changes it where a context scales RoPE by YaRN.
        self._trained_length = max(0, int(ll.llama_model_n_ctx_train(self.handle)))
        trained_scale = float(ll.llama_model_rope_freq_scale_train(self.handle))
        self.load = with_rope_scale(load, self._trained_length, trained_scale)
        self._has_gpu = bool(gpus(visible_devices()))  # llama_supports_gpu_offload is also true for RPC

    @property
    def layers(self) -> int:
        return int(ll.llama_model_n_layer(self.handle))

    @property
    def gpu_layers(self) -> int:
        """Layers on a GPU; the output layer counts as one."""
        if not self._has_gpu:
            return 0
        most = self.layers + 1
        return most if self._gpu_layers_wanted == ALL_LAYERS else min(self._gpu_layers_wanted, most)

    @property
    def embedding_length(self) -> int:
        return int(ll.llama_model_n_embd(self.handle))

    @property
    def kv_bytes_per_token(self) -> int:
        """Of all layers, with keys and values of 16 bits: an estimate."""
        heads = max(1, int(ll.llama_model_n_head(self.handle)))
        width = int(ll.llama_model_n_embd(self.handle)) // heads * int(ll.llama_model_n_head_kv(self.handle))
        return self.layers * width * 2 * 2

    @property
    def can_cut(self) -> bool:
        """Whether a sequence's cache may be cut at any token.

        Not with recurrent state, nor with a sliding window unless its layers keep the whole context.
        """
        return not (self.is_recurrent or self.is_hybrid) and (self._keeps_windows or not self.sliding_window)

    @property
    def can_cut_saved(self) -> bool:
        """Whether a saved state may be cut at any token: llama.cpp saves no more of a layer than its window."""
        return self.can_cut and not self.sliding_window

    @property
    def is_recurrent(self) -> bool:
        """Whether all layers keep a recurrent state."""
        return bool(ll.llama_model_is_recurrent(self.handle))

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers keep a recurrent state, and others the cells of all tokens."""
        return bool(ll.llama_model_is_hybrid(self.handle))

    @property
    def sliding_window(self) -> int:
        """Tokens that some layers see before each; 0 if all see everything."""
        return int(ll.llama_model_n_swa(self.handle))

    @property
    def draft_heads(self) -> int:
        """Layers that predict tokens further ahead (MTP)."""
        return int(ll.llama_model_n_layer_nextn(self.handle))

    @property
    def has_planes(self) -> bool:
        """Whether it places the parts of images in rows and columns (M-RoPE)."""
        return self.rope_type in (ll.LLAMA_ROPE_TYPE_MROPE, ll.LLAMA_ROPE_TYPE_IMROPE)

    @property
    def rope_type(self) -> int:
        """enum llama_rope_type."""
        return int(ll.llama_model_rope_type(self.handle))

    @property
    def only_embeds(self) -> bool:
        return "bert" in self.metadata("general.architecture") or self.pooling not in NO_POOLING

    @property
    def can_embed(self) -> bool:
        """Whether pooling yields a vector: a reranker's yields scores."""
        return not self.can_rerank

    @property
    def can_rerank(self) -> bool:
        return self.pooling == POOLING_RANK

    @property
    def pooled_length(self) -> int:
        """How many numbers pooling yields for an input."""
        if self.can_rerank:
            return int(ll.llama_model_n_cls_out(self.handle))
        return int(ll.llama_model_n_embd_out(self.handle))

    @property
    def trained_length(self) -> int:
        """Tokens of the longest text that it was trained on; 0 if unknown."""
        return self._trained_length

    @property
    def pooling(self) -> str:
        """The file's pooling type as a number; "" if it has none."""
        return self.metadata(f"{self.metadata('general.architecture')}.pooling_type")

    @property
    def chat_template(self) -> str | None:
        return self._template(None)

    @property
    def rerank_template(self) -> str | None:
        return self._template(b"rerank")

    def _template(self, name: bytes | None) -> str | None:
        template = ll.llama_model_chat_template(self.handle, name)
        return template.decode(errors="replace") if template else None

    def metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(1024)
        length = ll.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else ""

    def close(self) -> None:
        ll.llama_model_free(self.handle)


def load_error(log: LlamaLog, what: str) -> LoadFailed:
    """The error for a failed load, with llama.cpp's last complaints."""
    complaints = log.complaints()
    kind = InsufficientMemory if any(sign in complaints.lower() for sign in _OUT_OF_MEMORY) else LoadFailed
    return kind(f"{what}: {complaints or 'llama.cpp gave no reason'}")
