"""Published MCP servers from npm (tests/npm): how to start them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.npm.installation import FOLDER, node, script

_EVERYTHING = "@modelcontextprotocol/server-everything"
_FILESYSTEM = "@modelcontextprotocol/server-filesystem"


def everything() -> list[str]:
    """The command of a server with one of each thing MCP has, over standard input and output."""
    return [node(), str(script(_EVERYTHING)), "stdio"]


def filesystem(*folders: Path) -> list[str]:
    """The command of a server whose tools read and write files in these folders."""
    return [node(), str(script(_FILESYSTEM)), *map(str, folders)]


@contextlib.contextmanager
def everything_over_http(port: int = 0) -> Iterator[str]:
    """The URL of one that listens on a port of 127.0.0.1 until the end; 0: a free one."""
    program = ["--require", str(FOLDER / "loopback.cjs"), str(script(_EVERYTHING)), "streamableHttp"]
    with subprocess.Popen(
        [node(), *program],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            yield f"http://127.0.0.1:{_port(server)}/mcp"
        finally:
            server.kill()


def _port(server: subprocess.Popen[str]) -> int:
    """Its output once it listens. If it cannot, it ends by itself, and so does its output."""
    assert server.stderr is not None
    said: list[str] = []
    for line in server.stderr:
        said.append(line)
        if line.startswith("listening on "):
            return int(line.removeprefix("listening on "))
    raise AssertionError("it ended before it listened:\n" + "".join(said))
