"""A server that is a program: started, its standard input and output, and its end with all processes it started.

The SDK's own transport buffers a line until it ends, whatever its length, and passes the program's standard error on to
ours. This one has the same form (a context manager of two streams) and bounds both.
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

from gateway.core.mcp_server_config import Command
from gateway.tools.mcp_client.mcp_limits import KIB, PoolLimits, parts_of
from gateway.tools.mcp_client.mcp_traffic import RateLimit, Received, Streams

STDERR_TAIL = 4 * KIB  # bytes
WRITE_SECONDS = 10.0  # for a program to read a message
EXIT_POLL_SECONDS = 0.01  # while a program is being ended
WATCH_SECONDS = 0.2  # between checks whether a program still runs


class ProgramDiagnostics:
    """The end of a program's standard error. `fault`: why its output was rejected, if it was."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self._tail = b""

    def add(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-STDERR_TAIL:]

    @property
    def stderr_tail(self) -> str:
        return self._tail.decode(errors="replace").strip()


@asynccontextmanager
async def program_streams(
    command: Command, limits: PoolLimits, diagnostics: ProgramDiagnostics
) -> AsyncIterator[Streams]:
    """Starts the program; it has exited when the context has. Raises OSError, ValueError."""
    process = await anyio.open_process(
        [command.command, *command.args],
        # Only the few variables that every program needs: this server's environment holds its keys.
        env={**get_default_environment(), **dict(command.env)},
        cwd=command.cwd,
        start_new_session=True,
    )
    write_in, read = anyio.create_memory_object_stream[Received](0)
    write, read_out = anyio.create_memory_object_stream[SessionMessage](0)
    pipes = _Pipes(process, limits, diagnostics)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(pipes.read_output, write_in)
            group.start_soon(pipes.write_input, read_out, write_in)
            group.start_soon(pipes.read_errors)
            group.start_soon(pipes.watch_exit, write_in)
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
    """The message is a predicate whose subject is the server."""


class _Pipes:
    """The three pipes of one program."""

    def __init__(self, process: Process, limits: PoolLimits, diagnostics: ProgramDiagnostics) -> None:
        self._process = process
        self._limits = limits
        self._diagnostics = diagnostics
        self._rate = RateLimit(limits.messages_a_second)  # of lines that are not messages

    async def read_output(self, to: MemoryObjectSendStream[Received]) -> None:
        async with to:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                try:
                    async for line in _lines(_pipe(self._process.stdout), self._limits):
                        if (message := _message(line)) is not None:
                            await to.send(message)
                        else:
                            await self._rate.step()
                except _TooLarge as reason:
                    self._diagnostics.fault = str(reason)
        await self._discard_output()

    async def write_input(
        self, messages: MemoryObjectReceiveStream[SessionMessage], to: MemoryObjectSendStream[Received]
    ) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            async with messages:
                async for item in messages:
                    line = item.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                    with anyio.fail_after(WRITE_SECONDS):
                        await stdin.send(line.encode(errors="replace"))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):  # TimeoutError is an OSError
            to.close()  # requests that the program did not read fail at once instead of at their timeout

    async def read_errors(self) -> None:
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for data in _pipe(self._process.stderr):
                self._diagnostics.add(data)

    async def watch_exit(self, to: MemoryObjectSendStream[Received]) -> None:
        """The output of a program that has exited stays open while processes it started hold it."""
        while self._process.returncode is None:  # noqa: ASYNC110 - `wait()` waits for the output, too
            await anyio.sleep(WATCH_SECONDS)
        await anyio.sleep(WATCH_SECONDS)  # for its last output
        to.close()

    async def _discard_output(self) -> None:
        """A program blocked on a full output pipe would not notice that its input has been closed."""
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for _ in _pipe(self._process.stdout):
                pass


def _pipe(stream: ByteReceiveStream | None) -> ByteReceiveStream:
    assert stream is not None
    return stream


async def _lines(pipe: ByteReceiveStream, limits: PoolLimits) -> AsyncIterator[bytes]:
    """Whole lines, without empty ones. Raises _TooLarge."""
    line = bytearray()
    async for data in pipe:
        for piece in _split(data):
            line += piece
            if len(line) > limits.message:
                raise _TooLarge("sent a message that is too long")
            if piece.endswith(b"\n"):
                if parts_of(line) > limits.parts:
                    raise _TooLarge("sent a message with too many values")
                if line.strip():
                    yield bytes(line)
                line = bytearray()


def _message(line: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None  # many programs print a greeting or logs on their standard output


def _split(data: bytes) -> Iterator[bytes]:
    """At line feeds only; `splitlines` splits at other characters too."""
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        yield data[start:end]
        start = end
    yield data[start:]


async def _end(process: Process, grace: float) -> None:
    """MCP's shutdown of a program: its input is closed, then SIGTERM, then SIGKILL to its whole process group."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    await _await_exit(process, grace)
    await terminate_posix_process_tree(process, grace)
    await _await_exit(process, grace)
    with anyio.move_on_after(grace):
        await process.aclose()


async def _await_exit(process: Process, seconds: float) -> None:
    # Not `wait()`, which also waits for pipes that other processes may hold.
    with anyio.move_on_after(seconds):
        while process.returncode is None:  # noqa: ASYNC110
            await anyio.sleep(EXIT_POLL_SECONDS)
