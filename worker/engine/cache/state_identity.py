"""What a saved state is of: everything that its bytes depend on, as a digest. Another digest, and it is not read."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as ll

from atelier.settings.groups import Load
from worker.engine.model.batch_invariance import key_type

# A setting that is added later counts until it is named here: a cache that is lost is better than a wrong one.
_WITHOUT_EFFECT = frozenset(
    {"cache_ram", "cache_disk", "cores", "mmap", "mlock", "load_seed", "speculation", "draft_model", "draft_tokens"}
)
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def state_identity(files: Sequence[str], load: Load, *, gpu_layers: int, devices: list[str]) -> bytes:
    """32 bytes: of the files, the settings, and the build of llama.cpp on this processor and these devices.

    `files`: all that the weights come from; of a model that is split, its first part.
    """
    facts = {
        "files": [_stamp(part) for path in files for part in model_files(Path(path))],
        "load": {name: value for name, value in dataclasses.asdict(load).items() if name not in _WITHOUT_EFFECT},
        "keys": key_type(load, on_gpu=gpu_layers > 0),
        "gpu_layers": gpu_layers,
        "devices": devices,
        "llama_cpp": llama_cpp.__version__,
        "system": ll.llama_print_system_info().decode(),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=32).digest()


def model_files(path: Path) -> list[Path]:
    """The file, or all parts of one that is split."""
    if (part := _PART.search(path.name)) is None:
        return [path]
    stem = path.name[: part.start()]
    return sorted(each for each in path.parent.iterdir() if each.name.startswith(stem) and _PART.search(each.name))


def _stamp(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"name": path.name, "size": stat.st_size, "modified": stat.st_mtime_ns}
