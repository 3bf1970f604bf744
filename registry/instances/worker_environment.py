"""What a worker inherits of the registry's environment: what it needs, and no secrets."""

from collections.abc import Mapping

KEPT = frozenset({"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "ATELIER_LOG_LEVEL"})
KEPT_PREFIXES = (
    *("CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "VK_", "GGML_"),
    *("OMP_", "GOMP_", "KMP_"),
    *("PYTHON", "DYLD_", "LC_", "XDG_"),
)


def worker_environment(inherited: Mapping[str, str], pinned: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker; what pins it to its devices wins."""
    kept = {name: value for name, value in inherited.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    return {**kept, "ATELIER_LOG_FORMAT": "json", **pinned}
