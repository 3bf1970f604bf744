"""`python -m tests.conformance.client URL`, what the suite runs: our MCP host meets a server of one of its scenarios.

The host does what it does in the gateway: it lists the tools and calls them. The scenario is told in the environment.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.mcp_host.pool import ServerPool

from gateway.mcp_host.server import Endpoint, Server
from gateway.mcp_host.tool import ServerTool

_EXAMPLES: Mapping[str, Any] = {
    "string": "text",
    "integer": 3,
    "number": 2.5,
    "boolean": True,
    "array": [],
    "object": {},
}


async def meet(url: str, context: Mapping[str, Any]) -> None:
    pool = ServerPool()
    server = Server("conformance", Endpoint(url), elicitation=True)
    try:
        for tool, arguments in calls(await pool.tools(server), context):
            print(tool, arguments, "=>", await pool.call(server, tool, arguments))
    finally:
        await pool.close()


def calls(tools: Sequence[ServerTool], context: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those the scenario asks for, else one of each tool that the host lets through."""
    if asked := context.get("toolCalls"):
        yield from ((call["name"], call["arguments"]) for call in asked)
        return
    for tool in tools:
        yield tool.name, example(tool.parameters, tools)


def example(schema: Mapping[str, Any], tools: Sequence[ServerTool]) -> dict[str, Any]:
    """Arguments of the right types. An argument called "schema" is meant to be the first tool's, as it was received."""
    found = {name: _EXAMPLES.get(part.get("type"), "text") for name, part in schema.get("properties", {}).items()}
    return {**found, "schema": tools[0].parameters} if "schema" in found else found


if __name__ == "__main__":
    asyncio.run(meet(sys.argv[-1], json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))))
