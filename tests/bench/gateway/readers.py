"""Reader processes: the streams are spread over them, so that no client is what limits the gateway."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack

from tests.bench.gateway.child import child
from tests.bench.gateway.reader import Counted

READERS = 2
LIMIT_SECONDS = 120.0


async def read_streams(port: int, streams: int) -> Counted:
    """All streams begun at once and read to their ends."""
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT_SECONDS):
        readers = [await _started(stack, port, share) for share in shares(streams, READERS)]
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write(b"go\n")
        return together([await _counted(reader) for reader in readers])


def shares(streams: int, readers: int) -> list[int]:
    """As even as can be; a reader without streams is none."""
    each, more = divmod(streams, readers)
    return [share for share in (each + (number < more) for number in range(readers)) if share]


def together(counts: list[Counted]) -> Counted:
    return Counted(
        min(count.first for count in counts),
        max(count.last for count in counts),
        sum(count.text_events for count in counts),
        sum(count.whole_streams for count in counts),
    )


async def _started(stack: AsyncExitStack, port: int, streams: int) -> Process:
    command = (sys.executable, "-m", "tests.bench.gateway.reader", str(port), str(streams))
    process = await stack.enter_async_context(child(*command, stdin=PIPE, stdout=PIPE))
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _counted(reader: Process) -> Counted:
    assert reader.stdout is not None
    return Counted(**json.loads(await reader.stdout.readline()))
