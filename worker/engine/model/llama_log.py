"""llama.cpp's log, into ours; its last complaints are kept to explain a failed load."""

import ctypes
from collections import deque
from typing import Any

import structlog
from llama_cpp import llama_cpp as ll

KEPT_LINES = 8
_INFO, _WARN, _ERROR = 2, 3, 4  # enum ggml_log_level: none, debug, info, warn, error, cont

_log = structlog.get_logger("llama.cpp")


class LlamaLog:
    """Must live as long as llama.cpp may log: it owns the callback that C calls."""

    def __init__(self) -> None:
        self._complaints: deque[str] = deque(maxlen=KEPT_LINES)
        self.callback = ll.llama_log_callback(self._receive)
        ll.llama_log_set(self.callback, ctypes.c_void_p(0))

    def complaints(self) -> str:
        """The last warnings and errors, one per line."""
        return "\n".join(self._complaints)

    def _receive(self, level: int, text: bytes, _data: Any) -> None:
        line = text.decode(errors="replace").strip()
        if level in (_WARN, _ERROR) and line:
            self._complaints.append(line)
            _log.warning("llama_cpp", line=line)
        elif level == _INFO and line:
            _log.debug("llama_cpp", line=line)
