"""A server that is a program: started, spoken with over its standard input and output, and ended with all it started.

The SDK's own transport keeps a line until it ends, however long it is, and hands the program's errors to ours. This
one has the same form (a context manager of two streams) and bounds both.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.os.posix.utilities import terminate_posix_process_tree
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from gateway.core.mcp_server import Command
from gateway.tools.mcp_client.mcp_limits import KIB, PoolLimits, parts_of
from gateway.tools.mcp_client.mcp_traffic import Item, Pace, Streams

LAST_WORDS = 4 * KIB  # bytes of a program's errors that are kept
WRITE_SECONDS = 10.0  # that a program may leave a message unread
LOOK_SECONDS = 0.01
WATCH_SECONDS = 0.2  # between two looks at whether a program runs


class LastWords:
    """The end of what a program wrote to its standard error. `fault`: for what we ended the talk."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-LAST_WORDS:]

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace").strip()


@asynccontextmanager
async def program_streams(command: Command, limits: PoolLimits, words: LastWords) -> AsyncIterator[Streams]:
    """Starts the program; OSError, ValueError. It has ended when the context has."""
    process = await anyio.open_process(
        [command.command, *command.args],
        # Nothing of this server's environment, which holds its keys, but what every program needs.
        env={**get_default_environment(), **dict(command.env)},
        cwd=command.cwd,
        start_new_session=True,
    )
    write_in, read = anyio.create_memory_object_stream[Item](0)
    write, read_out = anyio.create_memory_object_stream[SessionMessage](0)
    talk = _Talk(process, limits, words)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(talk.listen, write_in)
            group.start_soon(talk.speak, read_out, write_in)
            group.start_soon(talk.note_errors)
            group.start_soon(talk.notice_end, write_in)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    read.close()
                    write.close()
                    await _end(process, limits.grace_seconds)
                group.cancel_scope.cancel()
    finally:
        for stream in (read, write, write_in, read_out):
            stream.close()


class _TooLarge(Exception):
    """The message says what of a server is not read."""


class _Talk:
    """The three pipes of one program."""

    def __init__(self, process: Process, limits: PoolLimits, words: LastWords) -> None:
        self._process = process
        self._limits = limits
        self._words = words
        self._pace = Pace(limits.messages_a_second)  # of lines that are no messages

    async def listen(self, to: MemoryObjectSendStream[Item]) -> None:
        async with to:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                try:
                    async for line in _lines(_pipe(self._process.stdout), self._limits):
                        if (message := _message(line)) is not None:
                            await to.send(message)
                        else:
                            await self._pace.step()
                except _TooLarge as reason:
                    self._words.fault = str(reason)
        await self._drain()

    async def speak(self, what: MemoryObjectReceiveStream[SessionMessage], to: MemoryObjectSendStream[Item]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            async with what:
                async for item in what:
                    line = item.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                    with anyio.fail_after(WRITE_SECONDS):
                        await stdin.send(line.encode(errors="replace"))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):  # TimeoutError is one
            to.close()  # who waits for an answer to what was not read learns that there will be none

    async def note_errors(self) -> None:
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for data in _pipe(self._process.stderr):
                self._words.add(data)

    async def notice_end(self, to: MemoryObjectSendStream[Item]) -> None:
        """Where a program has started others, its output does not end with it: they hold it open."""
        while self._process.returncode is None:  # noqa: ASYNC110 - `wait()` waits for the output, too
            await anyio.sleep(WATCH_SECONDS)
        await anyio.sleep(WATCH_SECONDS)  # for what it has said last
        to.close()

    async def _drain(self) -> None:
        """What a program still writes when nobody listens would otherwise keep it from reading that it may go."""
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for _ in _pipe(self._process.stdout):
                pass


def _pipe(stream: ByteReceiveStream | None) -> ByteReceiveStream:
    assert stream is not None
    return stream


async def _lines(pipe: ByteReceiveStream, limits: PoolLimits) -> AsyncIterator[bytes]:
    """Whole lines that are not empty; _TooLarge."""
    line = bytearray()
    async for data in pipe:
        for piece in _split(data):
            line += piece
            if len(line) > limits.message:
                raise _TooLarge("sent a message that is too long")
            if piece.endswith(b"\n"):
                if parts_of(line) > limits.parts:
                    raise _TooLarge("sent a message of too many parts")
                if line.strip():
                    yield bytes(line)
                line = bytearray()


def _message(line: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None  # many a program greets on its standard output


def _split(data: bytes) -> Iterator[bytes]:
    """At line feeds, and only there."""
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        yield data[start:end]
        start = end
    yield data[start:]


async def _end(process: Process, grace: float) -> None:
    """As MCP has it: its input ends, it is told to, it is killed; and all that it started with it."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    await _gone(process, grace)
    await terminate_posix_process_tree(process, grace)
    await _gone(process, grace)
    with anyio.move_on_after(grace):
        await process.aclose()


async def _gone(process: Process, seconds: float) -> None:
    # Not `wait()`, which also waits for pipes that whoever the program started may hold.
    with anyio.move_on_after(seconds):
        while process.returncode is None:  # noqa: ASYNC110
            await anyio.sleep(LOOK_SECONDS)
