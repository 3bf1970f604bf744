"""GPUs for a process on a machine that has none: their driver's library, and what llama.cpp reports of them."""

import subprocess
from pathlib import Path

import llama_cpp

SOURCES = Path(__file__).parent
LLAMA = Path(llama_cpp.__file__).parent
COMPILER = ("cc", "-shared", "-fPIC", "-Wall", "-Wno-unused-parameter", "-Werror")
APPEAR = """
import ctypes
ctypes.CDLL({gpus!r}).appear(ctypes.CDLL({ggml!r}).ggml_backend_device_register)
"""


def fake_nvml(directory: Path, **defined: int) -> dict[str, str]:
    """The environment in which NVML is the one of fake_nvml.c, compiled with these macros."""
    macros = [f"-D{name}={value}" for name, value in defined.items()]
    library = directory / "libnvidia-ml.so.1"
    subprocess.run([*COMPILER, *macros, str(SOURCES / "fake_nvml.c"), "-o", str(library)], check=True)
    return {"LD_LIBRARY_PATH": str(directory)}


def broken_nvml(directory: Path) -> dict[str, str]:
    """The environment in which NVML is there, and is no library."""
    (directory / "libnvidia-ml.so.1").write_text("no library")
    return {"LD_LIBRARY_PATH": str(directory)}


def fake_ggml_gpus(directory: Path) -> dict[str, str]:
    """The environment in which every Python process finds the GPUs of fake_ggml_gpus.c in llama.cpp."""
    library = directory / "gpus.so"
    headers = f"-I{LLAMA.parent / 'include'}"
    subprocess.run([*COMPILER, headers, str(SOURCES / "fake_ggml_gpus.c"), "-o", str(library)], check=True)
    at_start = APPEAR.format(gpus=str(library), ggml=str(LLAMA / "lib/libllama.so"))
    (directory / "sitecustomize.py").write_text(at_start)
    return {"PYTHONPATH": str(directory)}
