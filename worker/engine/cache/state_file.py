"""The file of a saved state: the identity of its model and settings, the prompt's pieces, the state, checksums.

    magic, identity, sizes in bytes of the pieces and of the state | pieces, as JSON | checksum
    state | checksum

A file is never trusted: one that is truncated, damaged, or of another model or other settings is not read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import BinaryIO

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.settings.groups import Load
from worker.engine.cache.prefix_tree import Piece
from worker.engine.model.batch_invariance import cache_types

SUFFIX = ".kv"
UNFINISHED = ".part"
_MAGIC = b"ATELIER1"
_FIXED = struct.Struct("<8s32sIQ")
_CHECKSUM = struct.Struct("<I")

# A setting that is added later counts until it is listed here: a lost cache is better than a wrong one.
_WITHOUT_EFFECT = frozenset(
    {
        "cache_ram", "cache_disk", "checkpoints", "cores", "mmap", "mlock", "load_seed",
        "speculation", "draft_model", "draft_tokens",
    }
)  # fmt: skip
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")

State = NDArray[np.uint8]


class UnusableFile(Exception):
    """Truncated, damaged, or not of this model and these settings."""


def file_size(pieces: Sequence[Piece], state_size: int) -> int:
    """Bytes of the file."""
    return _FIXED.size + len(encode_pieces(pieces)) + state_size + 2 * _CHECKSUM.size


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """A canonical encoding: equal for equal pieces alone."""
    return json.dumps(pieces, separators=(",", ":")).encode()


def write_state(path: Path, identity: bytes, pieces: Sequence[Piece], state: State) -> None:
    """Write the whole file or none. Raises OSError.

    It is not synced to the disk: after a power cut an incomplete file fails its checksum.
    """
    part = path.with_suffix(UNFINISHED)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_head(identity, pieces, state.size))
            file.write(state.data)
            file.write(_CHECKSUM.pack(zlib.crc32(state.data)))
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def read_pieces(path: Path, identity: bytes) -> list[Piece]:
    """The pieces of the file's state. Raises UnusableFile, or OSError when the file cannot be read."""
    with path.open("rb") as file:
        fixed = _exactly(file, _FIXED.size)
        magic, owner, pieces_size, state_size = _FIXED.unpack(fixed)
        size = _FIXED.size + pieces_size + state_size + 2 * _CHECKSUM.size
        if (magic, owner, size) != (_MAGIC, identity, os.fstat(file.fileno()).st_size):
            raise UnusableFile
        encoded = _exactly(file, pieces_size)
        _check(_exactly(file, _CHECKSUM.size), fixed + encoded)
        return [tuple(map(_hashable, piece)) for piece in json.loads(encoded)]


def read_state(path: Path, identity: bytes, pieces: Sequence[Piece]) -> State:
    """The state of these pieces. Raises UnusableFile, also for a file of other pieces, and OSError."""
    with path.open("rb") as file:
        state_size = os.fstat(file.fileno()).st_size - file_size(pieces, 0)
        if state_size < 0 or file.read(len(head := _head(identity, pieces, state_size))) != head:
            raise UnusableFile
        state = np.empty(state_size, np.uint8)
        if file.readinto(state.data) != state_size:
            raise UnusableFile
        _check(_exactly(file, _CHECKSUM.size), state.data)
        return state


def _head(identity: bytes, pieces: Sequence[Piece], state_size: int) -> bytes:
    encoded = encode_pieces(pieces)
    head = _FIXED.pack(_MAGIC, identity, len(encoded), state_size) + encoded
    return head + _CHECKSUM.pack(zlib.crc32(head))


def _hashable(value: Hashable | list[Hashable]) -> Hashable:
    """With tuples in place of JSON's lists."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _exactly(file: BinaryIO, size: int) -> bytes:
    read = file.read(size)
    if len(read) != size:
        raise UnusableFile
    return read


def _check(checksum: bytes, content: bytes | memoryview) -> None:
    if _CHECKSUM.unpack(checksum) != (zlib.crc32(content),):
        raise UnusableFile


def state_identity(files: Sequence[str], load: Load, *, gpu_layers: int, devices: list[str]) -> bytes:
    """A digest of everything that a state's bytes depend on, 32 bytes: files, settings, llama.cpp's build, devices.

    `files`: all that weights are read from; of a split model, its first part.
    """
    facts = {
        "files": [_stamp(part) for path in files for part in model_files(Path(path))],
        "load": {name: value for name, value in dataclasses.asdict(load).items() if name not in _WITHOUT_EFFECT},
        "cache": cache_types(load, on_gpu=gpu_layers > 0),
        "gpu_layers": gpu_layers,
        "devices": devices,
        "llama_cpp": llama_cpp.__version__,
        "system": ll.llama_print_system_info().decode(),
    }
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=32).digest()


def model_files(path: Path) -> list[Path]:
    """The file, or all parts of a split one."""
    if (part := _PART.search(path.name)) is None:
        return [path]
    stem = path.name[: part.start()]
    return sorted(each for each in path.parent.iterdir() if each.name.startswith(stem) and _PART.search(each.name))


def _stamp(path: Path) -> dict[str, str | int]:
    stat = path.stat()
    return {"name": path.name, "size": stat.st_size, "modified": stat.st_mtime_ns}
