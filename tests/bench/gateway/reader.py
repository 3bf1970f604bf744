"""`python -m tests.bench.gateway.reader PORT STREAMS`: reads streams and counts, as cheaply as it can.

Says `ready`, begins at a line on standard input, and says what it counted as a line of JSON. The
gateway's own cost is wanted, so nothing is parsed here: events are counted by their prefix.
"""

import asyncio
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from typing import cast

import uvloop

from tests.bench.exchange import LOOPBACK, request_bytes
from tests.support.gateway.gateway_registry import KEY

PATH = "/v1/chat/completions"
BODY = {"model": KEY, "messages": [{"role": "user", "content": "Go on."}], "stream": True}
EVENT, END = b"data: ", b"data: [DONE]"
EXTRA_EVENTS = 3  # of a stream: the role, the end's reason, the end


@dataclass(slots=True)
class Counted:
    """Of all streams of one reader. Times in seconds of the system's monotonic clock."""

    first: float = float("inf")
    last: float = 0.0
    text_events: int = 0
    whole_streams: int = 0


class Reader(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes, counted: Counted) -> None:
        self._request = request
        self._counted = counted
        self._events = 0
        self._end = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        counted = self._counted
        counted.first = min(counted.first, now)
        counted.last = now
        self._events += data.count(EVENT)
        self._end = (self._end + data)[-64:]

    def connection_lost(self, error: Exception | None) -> None:
        self._counted.text_events += max(0, self._events - EXTRA_EVENTS)
        self._counted.whole_streams += END in self._end
        self.over.set_result(None)


async def read(port: int, streams: int) -> Counted:
    counted = Counted()
    request = request_bytes(PATH, BODY)
    loop = asyncio.get_running_loop()
    readers = [Reader(request, counted) for _ in range(streams)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, LOOPBACK, port)
    await asyncio.gather(*(reader.over for reader in readers))
    return counted


def main() -> None:
    port, streams = map(int, sys.argv[1:])
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(dataclasses.asdict(uvloop.run(read(port, streams)))), flush=True)


if __name__ == "__main__":
    main()
