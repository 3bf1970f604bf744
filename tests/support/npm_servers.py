"""MCP servers that others wrote, from npm (tests/npm): how to start them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from tests.npm.installation import FOLDER, node, script
from tests.support.gateway_server import PATIENCE

_EVERYTHING = "@modelcontextprotocol/server-everything"
_FILESYSTEM = "@modelcontextprotocol/server-filesystem"


def everything() -> list[str]:
    """The command of a server with one of each thing MCP has, over standard input and output."""
    return [node(), str(script(_EVERYTHING)), "stdio"]


def filesystem(*folders: Path) -> list[str]:
    """The command of a server whose tools read and write what lies in these folders."""
    return [node(), str(script(_FILESYSTEM)), *map(str, folders)]


@contextlib.asynccontextmanager
async def everything_over_http() -> AsyncIterator[str]:
    """The URL of one that listens on a free port of 127.0.0.1 until the end."""
    command = [node(), "--require", str(FOLDER / "loopback.cjs"), str(script(_EVERYTHING)), "streamableHttp"]
    server = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "PORT": "0"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield f"http://127.0.0.1:{await _port(server)}/mcp"
    finally:
        server.terminate()
        await asyncio.wait_for(server.communicate(), PATIENCE)


async def _port(server: asyncio.subprocess.Process) -> int:
    assert server.stderr is not None
    said: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while line := (await server.stderr.readline()).decode():
            said.append(line)
            if line.startswith("listening on "):
                return int(line.removeprefix("listening on "))
    raise AssertionError("it ended before it listened:\n" + "".join(said))
