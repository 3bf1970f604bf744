"""The MCP client, for the suite's scenarios: lists a server's tools and calls them, as in the gateway."""

import asyncio
import contextlib
import json
import shlex
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from gateway.core.hosted_tool import ServerTool
from gateway.core.mcp_server_config import Endpoint, ServerConfig
from gateway.core.outbound import AddressGuard
from gateway.tools.mcp_client.connection_pool import ServerPool
from tests.conformance import courier
from tests.support.gateway.gateway_server import short_directory

_PATIENCE = 15.0  # seconds for one scenario; the suite's own limit is longer
_EXAMPLES = {"string": "text", "integer": 3, "number": 2.5, "boolean": True, "array": [], "object": {}}


@contextlib.asynccontextmanager
async def courier_command() -> AsyncIterator[str]:
    """The command line that, followed by a server's URL, has the MCP client of this process connect to it."""
    with short_directory() as directory:
        path = str(directory / "client.sock")
        async with await asyncio.start_unix_server(_answer, path):
            yield shlex.join([sys.executable, "-I", "-S", str(Path(courier.__file__)), path])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = json.loads(await reader.readline())
    try:
        async with asyncio.timeout(_PATIENCE):
            await meet(asked["url"], asked["context"])
    except Exception:
        writer.write(traceback.format_exc().encode())
    writer.close()


async def meet(url: str, context: Mapping[str, Any]) -> None:
    """One scenario. `context`: the client's input beside the URL."""
    pool = ServerPool(AddressGuard())
    server = ServerConfig("conformance", Endpoint(url), elicitation=True)
    try:
        for tool, arguments in calls(await pool.tools(server), context):
            await pool.call(server, tool, arguments, elicit=_leave_as_is)
    finally:
        await pool.close()


async def _leave_as_is(server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
    """A user who accepts a form with its defaults."""
    fields = params.requested_schema.get("properties", {}) if isinstance(params, ElicitRequestFormParams) else {}
    return ElicitResult(
        action="accept", content={name: each["default"] for name, each in fields.items() if "default" in each}
    )


def calls(tools: Sequence[ServerTool], context: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The scenario's calls, or else one of each usable tool."""
    if asked := context.get("toolCalls"):
        return ((call["name"], call["arguments"]) for call in asked)
    return ((tool.name, _arguments(tool, tools)) for tool in tools)


def _arguments(tool: ServerTool, tools: Sequence[ServerTool]) -> dict[str, Any]:
    """Of the right types. One that is called "schema" is meant to be the first tool's, as the client received it."""
    properties = tool.parameters.get("properties", {})
    found = {name: _EXAMPLES.get(part.get("type"), "text") for name, part in properties.items()}
    return {**found, "schema": tools[0].parameters} if "schema" in found else found
