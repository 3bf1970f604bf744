"""Reads the header of a GGUF file, which is untrusted.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count is bounded and every length
checked against the file's size, so that reading or rejecting a file takes under a second and little memory. The
`gguf` library supplies the constants; its own reader creates several objects per vocabulary string and trusts every
length.
"""

import heapq
import math
import os
import stat
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from atelier.errors import InvalidModelFile
from registry.models.bounded_reader import U32, U64, Window

Found = TypeVar("Found")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_ENTRIES = 65_536  # metadata entries, and tensors; real files have hundreds
MOST_STRINGS = 1_600_000  # in all arrays together; twice the largest known vocabulary with its merges
LONGEST_KEY = 4096  # bytes
MOST_NUMBERS = 1024  # of an array that is kept: one per layer, not per token
LONGEST_TENSOR_NAME = 256  # bytes
MOST_KEPT = 16 * 2**20  # bytes of metadata held in memory
MOST_DIMENSIONS = 4
MOST_SIZES = 4096  # tensors whose sizes are kept; the largest models have half as many
LARGEST_ALIGNMENT = 2**20
OF_TOKENS = "tokenizer."
TOKENS = "tokenizer.ggml.tokens"
DEFAULT_ALIGNMENT = 32
BLOCK = "blk."  # in the names of the tensors of repeated blocks

SCALARS = {
    GGUFValueType.UINT8: struct.Struct("<B"),
    GGUFValueType.INT8: struct.Struct("<b"),
    GGUFValueType.UINT16: struct.Struct("<H"),
    GGUFValueType.INT16: struct.Struct("<h"),
    GGUFValueType.UINT32: U32,
    GGUFValueType.INT32: struct.Struct("<i"),
    GGUFValueType.FLOAT32: struct.Struct("<f"),
    GGUFValueType.BOOL: struct.Struct("<?"),
    GGUFValueType.UINT64: U64,
    GGUFValueType.INT64: struct.Struct("<q"),
    GGUFValueType.FLOAT64: struct.Struct("<d"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """One file's header. `metadata` has scalars, strings and, as tuples, short arrays of numbers."""

    metadata: Mapping[str, Any]
    file_bytes: int
    tensors: int
    parameters: int
    tensor_bytes: int
    vocabulary: int  # tokens
    main_type: str  # of most parameters, for example "Q4_1"; empty without tensors
    outer_widths: frozenset[int]  # dimensions of tensors outside the repeated blocks
    tensor_sizes: Mapping[str, int]  # bytes by name, of the largest MOST_SIZES


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dimensions: tuple[int, ...]
    kind: GGMLQuantizationType
    parameters: int
    size: int  # bytes
    offset: int  # bytes, from the start of the data


@dataclass(frozen=True, slots=True)
class _Tables:
    metadata: dict[str, Any]
    vocabulary: int  # tokens
    tensors: list[_Tensor]
    data_end: int  # bytes from the file's start, where the last tensor ends


def read_header(path: Path) -> Header:
    """The file's header. Raises InvalidModelFile for a faulty file, OSError for an unreadable one."""
    return _read(path, _parse)


def whole_size(path: Path) -> int:
    """Bytes that the file has when it is complete, by its header; its tensors may be missing.

    Raises InvalidModelFile for a header that is faulty or incomplete, OSError.
    """
    return _read(path, lambda window, size: _read_tables(window, size).data_end)


def _read(path: Path, parse: Callable[[Window, int], Found]) -> Found:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not block
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidModelFile("It is not a file.")
        return parse(Window(descriptor, info.st_size), info.st_size)
    finally:
        os.close(descriptor)


def _read_tables(window: Window, size: int) -> _Tables:
    _check_magic(window, size)
    tensor_count, entry_count = _count(window, "tensors"), _count(window, "metadata entries")
    metadata, vocabulary = _read_metadata(window, entry_count)
    alignment = _alignment(metadata)
    tensors = _read_tensors(window, tensor_count)
    if any(tensor.offset % alignment for tensor in tensors):
        raise InvalidModelFile("The header is damaged: a tensor's offset is not aligned. Download the file again.")
    data_start = -(-window.position // alignment) * alignment
    end = max((data_start + tensor.offset + tensor.size for tensor in tensors), default=0)
    return _Tables(metadata, vocabulary, tensors, end)


def _parse(window: Window, size: int) -> Header:
    tables = _read_tables(window, size)
    metadata, tensors = tables.metadata, tables.tensors
    if tables.data_end > size:
        raise InvalidModelFile(f"The file is truncated: it has {size} of {tables.data_end} bytes. Download it again.")
    by_type: Counter[str] = Counter()
    for tensor in tensors:
        by_type[tensor.kind.name] += tensor.parameters
    return Header(
        metadata=metadata,
        file_bytes=size,
        tensors=len(tensors),
        parameters=by_type.total(),
        tensor_bytes=sum(tensor.size for tensor in tensors),
        vocabulary=tables.vocabulary,
        main_type=by_type.most_common(1)[0][0] if by_type else "",
        tensor_sizes=_largest(tensors),
        outer_widths=frozenset(width for tensor in tensors if BLOCK not in tensor.name for width in tensor.dimensions),
    )


def _largest(tensors: Sequence[_Tensor]) -> dict[str, int]:
    largest = heapq.nlargest(MOST_SIZES, tensors, key=lambda tensor: tensor.size)
    return {tensor.name: tensor.size for tensor in largest}


def _check_magic(window: Window, size: int) -> None:
    if size < len(MAGIC) or window.take(len(MAGIC)) != MAGIC:
        raise InvalidModelFile("It is not a GGUF file: it does not start with GGUF. Convert the model to GGUF first.")
    version = window.number(U32)
    if version in VERSIONS:
        return
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        raise InvalidModelFile("It is a big-endian GGUF file: use the little-endian one.")
    raise InvalidModelFile(f"It is GGUF version {version}; versions 2 and 3 are supported. Convert the model again.")


def _count(window: Window, of_what: str) -> int:
    count: int = window.number(U64)
    if count > MOST_ENTRIES:
        raise InvalidModelFile(f"The header is damaged: it claims {count} {of_what}. Download the file again.")
    return count


def _read_metadata(window: Window, count: int) -> tuple[dict[str, Any], int]:
    """The metadata, and the number of tokens in the vocabulary."""
    metadata: dict[str, Any] = {}
    kept, strings_left, vocabulary = 0, MOST_STRINGS, 0
    for _ in range(count):
        key = window.string(LONGEST_KEY).decode(errors="replace")
        if key in metadata:
            raise InvalidModelFile(f'The header is damaged: it has "{key[:100]}" twice. Download the file again.')
        start = window.position
        kind = _value_type(window.number(U32))
        if kind is GGUFValueType.ARRAY:
            most = 0 if key.startswith(OF_TOKENS) else MOST_NUMBERS
            metadata[key], strings = _read_array(window, strings_left, most)
            strings_left -= strings
            vocabulary = strings if key == TOKENS else vocabulary
        else:
            metadata[key] = _read_value(window, kind)
        kept += window.position - start if metadata[key] is not None else 0
        if (kept := kept + len(key)) > MOST_KEPT:
            raise InvalidModelFile("The header is damaged: its metadata is larger than any model's.")
    return {key: value for key, value in metadata.items() if value is not None}, vocabulary


def _value_type(number: int) -> GGUFValueType:
    try:
        return GGUFValueType(number)
    except ValueError:
        raise InvalidModelFile(
            f"The header is damaged: it has a value of the unknown type {number}. Download the file again."
        ) from None


def _read_value(window: Window, kind: GGUFValueType) -> Any:
    if kind is GGUFValueType.STRING:
        return window.string(MOST_KEPT).decode(errors="replace")
    return window.number(SCALARS[kind])


def _read_array(window: Window, strings_left: int, most_numbers: int) -> tuple[tuple[Any, ...] | None, int]:
    """An array's numbers, or None if there are more than `most_numbers`; and how many strings it has."""
    kind = _value_type(window.number(U32))
    count = window.number(U64)
    if kind is GGUFValueType.ARRAY:
        raise InvalidModelFile("The header is damaged: it has an array of arrays. Download the file again.")
    if kind is not GGUFValueType.STRING:
        if count <= most_numbers:
            return tuple(window.number(SCALARS[kind]) for _ in range(count)), 0
        window.skip(count * SCALARS[kind].size)
        return None, 0
    if count > min(strings_left, window.left // U64.size):
        raise InvalidModelFile(f"The header is damaged: it has an array of {count} strings. Download the file again.")
    window.skip_strings(count)
    return None, int(count)


def _alignment(metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise InvalidModelFile("The header is damaged: general.alignment is not a power of two.")
    return alignment


def _read_tensors(window: Window, count: int) -> list[_Tensor]:
    names: set[bytes] = set()
    tensors = []
    for _ in range(count):
        name = window.string(LONGEST_TENSOR_NAME)
        if name in names:
            raise InvalidModelFile(f'The header is damaged: it has the tensor "{name.decode(errors="replace")}" twice.')
        names.add(name)
        tensors.append(_read_tensor(window, name.decode(errors="replace")))
    return tensors


def _read_tensor(window: Window, name: str) -> _Tensor:
    dimension_count = window.number(U32)
    if not 0 < dimension_count <= MOST_DIMENSIONS:
        raise InvalidModelFile(f'The header is damaged: tensor "{name}" has {dimension_count} dimensions.')
    dimensions = [window.number(U64) for _ in range(dimension_count)]
    kind = _tensor_type(window.number(U32), name)
    parameters = math.prod(dimensions)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not 0 < parameters < 2**62 or dimensions[:1] != [dimensions[0] // block * block]:
        raise InvalidModelFile(f'The header is damaged: tensor "{name}" has the impossible shape {dimensions}.')
    return _Tensor(name, tuple(dimensions), kind, parameters, parameters // block * block_bytes, window.number(U64))


def _tensor_type(number: int, name: str) -> GGMLQuantizationType:
    try:
        return GGMLQuantizationType(number)
    except ValueError:
        raise InvalidModelFile(
            f'Tensor "{name}" has the type {number}, which is unknown: the file is damaged, or too new for this server.'
        ) from None
