"""Reads the start of a file forwards: never past its end, and with little memory."""

import os
import struct
from typing import Any

from atelier.errors import InvalidModelFile

WINDOW_BYTES = 2**20
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


class Window:
    """A buffered part of the file, and a position that only grows.

    Read, not mapped: reading a mapped file that shrinks kills the process (SIGBUS).
    Lengths in the file are untrusted: each is checked against the file's size before it is used.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._start = 0  # of the buffer, in the file
        self._buffer = b""
        self._at = 0  # in the buffer

    @property
    def position(self) -> int:
        return self._start + self._at

    @property
    def left(self) -> int:
        """Bytes up to the file's end."""
        return self._size - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes. Raises InvalidModelFile if the file ends before."""
        self._need(count)
        if self._at + count > len(self._buffer):
            self._fill(max(count, WINDOW_BYTES))
        if self._at + count > len(self._buffer):
            raise _cut_off(self._size)
        taken = self._buffer[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, layout: struct.Struct) -> Any:
        return layout.unpack(self.take(layout.size))[0]

    def string(self, longest: int) -> bytes:
        """A length-prefixed string of at most `longest` bytes. Raises InvalidModelFile."""
        length = self.number(U64)
        if length > longest:
            raise InvalidModelFile(f"The header is damaged: it has a string of {length} bytes. Download it again.")
        return self.take(length)

    def skip(self, count: int) -> None:
        self._need(count)
        self._at += count
        if self._at > len(self._buffer):
            self._start, self._buffer, self._at = self.position, b"", 0

    def skip_strings(self, count: int) -> None:
        """Skip `count` strings. A tight loop, because vocabularies have hundreds of thousands."""
        unpack = U64.unpack_from
        while count:
            self._need(U64.size)
            if self._at + U64.size > len(self._buffer):
                self._fill(WINDOW_BYTES)
            buffer, at, last = self._buffer, self._at, len(self._buffer) - U64.size
            if at > last:
                raise _cut_off(self._size)
            while count and at <= last:
                at += U64.size + unpack(buffer, at)[0]
                count -= 1
            self.skip(at - self._at)

    def _need(self, count: int) -> None:
        if count > self.left:
            raise _cut_off(self._size)

    def _fill(self, count: int) -> None:
        self._start, self._at = self.position, 0
        self._buffer = os.pread(self._descriptor, count, self._start)


def _cut_off(size: int) -> InvalidModelFile:
    return InvalidModelFile(f"The file is truncated or damaged: its {size} bytes end within the header.")
