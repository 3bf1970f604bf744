"""What a worker inherits of the registry's environment: what it needs, and no secrets."""

from collections.abc import Mapping

KEPT = frozenset({"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV", "ATELIER_LOG_LEVEL"})
KEPT_PREFIXES = (
    "CUDA_", "DYLD_", "GGML_", "HIP_", "HSA_", "KMP_", "LC_", "NVIDIA_", "OMP_", "PYTHON", "ROCR_", "VK_", "XDG_",
)  # fmt: skip


def worker_environment(inherited: Mapping[str, str], pinned: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker; what pins it to its devices wins."""
    kept = {name: value for name, value in inherited.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    return {**kept, "ATELIER_LOG_FORMAT": "json", **pinned}
