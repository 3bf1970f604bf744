"""A file that holds the state of one prompt's beginning: what it is of, its tokens, the state, checksums.

    magic, identity, bytes of the pieces and of the state | pieces, as JSON | checksum
    state | checksum

A file is never trusted: one that is cut off, spoilt, or of another model or other settings is not read.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from worker.engine.cache.prefix_tree import Piece

SUFFIX = ".kv"
UNFINISHED = ".part"
_MAGIC = b"ATELIER1"
_FIXED = struct.Struct("<8s32sIQ")
_CHECKSUM = struct.Struct("<I")

State = NDArray[np.uint8]


class UnusableFile(Exception):
    """Cut off, spoilt, or not of this model and these settings."""


def file_size(pieces: Sequence[Piece], state_size: int) -> int:
    """Bytes of the file."""
    return _FIXED.size + len(encode_pieces(pieces)) + state_size + 2 * _CHECKSUM.size


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """The same for the same pieces, and for no others."""
    return json.dumps(pieces, separators=(",", ":")).encode()


def write_state(path: Path, identity: bytes, pieces: Sequence[Piece], state: State) -> None:
    """Put the file there whole or not at all; OSError when it cannot be.

    It is not forced to the disk: what a power cut leaves of it fails its checksum.
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
    """What the file's state is of; UnusableFile when it cannot be used, OSError when it cannot be read."""
    with path.open("rb") as file:
        fixed = _exactly(file, _FIXED.size)
        magic, owner, pieces_size, state_size = _FIXED.unpack(fixed)
        size = _FIXED.size + pieces_size + state_size + 2 * _CHECKSUM.size
        if (magic, owner, size) != (_MAGIC, identity, os.fstat(file.fileno()).st_size):
            raise UnusableFile
        encoded = _exactly(file, pieces_size)
        _check(_exactly(file, _CHECKSUM.size), fixed + encoded)
        return [_frozen(piece) for piece in json.loads(encoded)]


def read_state(path: Path, identity: bytes, pieces: Sequence[Piece]) -> State:
    """The state of these pieces; UnusableFile when the file is not of them or spoilt, OSError where it fails."""
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


def _frozen(value: Any) -> Any:
    """With tuples in place of JSON's lists."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _exactly(file: BinaryIO, size: int) -> bytes:
    read = file.read(size)
    if len(read) != size:
        raise UnusableFile
    return read


def _check(checksum: bytes, content: bytes | memoryview) -> None:
    if _CHECKSUM.unpack(checksum) != (zlib.crc32(content),):
        raise UnusableFile
