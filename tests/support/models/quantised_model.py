"""Model files whose weights llama.cpp has quantised."""

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as ll

from tests.support.models.network_shapes import NetworkShape
from tests.support.models.random_model import Progress, write_random_model

QUANTISATIONS = {
    "f16": ll.LLAMA_FTYPE_MOSTLY_F16,
    "q4_0": ll.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_k_m": ll.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "q8_0": ll.LLAMA_FTYPE_MOSTLY_Q8_0,
}
NUMBERED = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")  # a tensor, and how many there are, in llama.cpp's log
KEPT_LINES = 3


class NotQuantised(Exception):
    """llama.cpp could not quantise a model file."""


def write_quantised_random_model(path: Path, shape: NetworkShape, kind: str = "q8_0", **options: Any) -> Path:
    """As `write_random_model`, which `options` are for, and then quantised. Raises NotQuantised."""
    plain = write_random_model(path.with_suffix(".f16"), shape, **options)
    try:
        return write_quantised(plain, path, kind)
    finally:
        plain.unlink()


def write_quantised(source: Path, target: Path, kind: str, progress: Progress = lambda share: None) -> Path:
    """The model in `source`, of float16, at `target` in another type. Raises NotQuantised.

    `kind`: one of QUANTISATIONS.
    """
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        if found := NUMBERED.search(line):
            progress(int(found[1]) / int(found[2]))

    params = ll.llama_model_quantize_default_params()
    params.ftype = QUANTISATIONS[kind]
    with _log_passed_to(note):
        failed = ll.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if failed:
        raise NotQuantised(f"{source.name} as {kind}: {' | '.join(lines[-KEPT_LINES:])}")
    return target


@contextmanager
def _log_passed_to(note: Callable[[str], None]) -> Iterator[None]:
    """llama.cpp's log, of the whole process, line by line."""
    before, data = ll.llama_log_callback(), ctypes.c_void_p()
    ll.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    callback = ll.llama_log_callback(lambda level, text, _data: note(text.decode(errors="replace").strip()))
    ll.llama_log_set(callback, None)
    try:
        yield
    finally:
        ll.llama_log_set(before, data)
