"""Whether this machine's llama.cpp supports GPUs."""

import functools
import importlib.util
from pathlib import Path

GPU_BACKENDS = ("cuda", "hip", "vulkan", "metal", "sycl", "musa", "opencl")


@functools.cache
def has_gpu_backend() -> bool:
    """Whether this build of llama.cpp has a GPU backend, by the libraries that it ships."""
    spec = importlib.util.find_spec("llama_cpp")  # found, not imported: importing would open devices
    if spec is None or spec.origin is None:
        return False
    names = [path.name for path in (Path(spec.origin).parent / "lib").glob("*ggml-*")]
    return any(backend in name for name in names for backend in GPU_BACKENDS)
