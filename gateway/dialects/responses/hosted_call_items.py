"""What calls of servers' tools are as items of a response: their lists, outputs and errors. Pure."""

from collections.abc import Sequence

import orjson

from atelier.json_types import Json
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.tools.loop.toolset import ServerListing

NO_REPLY = -32000  # a code that JSON-RPC leaves to servers: of all failures that no tool has told of
IMAGE = "[An image, which the item does not keep.]"


def listed_tools(listing: ServerListing) -> list[Json]:
    """As far as the request allows them."""
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": dict(tool.parameters),
            "annotations": dict(tool.annotations) or None,
        }
        for tool in listing.tools
    ]


def untold_listings(listings: Sequence[ServerListing], items: Sequence[Json]) -> list[ServerListing]:
    """Those that the conversation does not tell of already, with the same tools."""
    told = {item["server_label"]: item["tools"] for item in items if item["type"] == "mcp_list_tools"}
    return [listing for listing in listings if told.get(listing.use.server.label) != listed_tools(listing)]


def output_text(output: ToolOutput) -> str:
    return "\n".join(IMAGE if isinstance(piece, ToolImage) else piece for piece in output.pieces)


def outcome(ended: HostedCallEnded) -> Json:
    """The output or the error of an item."""
    if ended.output is None:
        return {"output": None, "error": protocol_error(ended.error)}
    text = output_text(ended.output)
    if ended.output.is_error:
        return {"output": None, "error": execution_error(text)}
    return {"output": text, "error": None}


def protocol_error(message: str) -> Json:
    """Of a call that never got to its tool, or whose reply did not come."""
    return {"type": "mcp_protocol_error", "code": NO_REPLY, "message": message}


def execution_error(text: str) -> Json:
    """In the tool's own judgement."""
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}


def outcome_text(item: Json) -> str:
    """What the model reads of a call's item: what it read when the call had ended, but for images."""
    error = item.get("error")
    if error is None:
        return item.get("output") or ""
    if error["type"] == "mcp_tool_execution_error":
        return "\n".join(["Error:", *_texts(error["content"])])
    return f"Error: {error['message']}"


def _texts(content: object) -> list[str]:
    """Of MCP's content, or of whatever else a client calls an error's content."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return [] if content is None else [orjson.dumps(content).decode()]
    texts = [block.get("text") for block in content if isinstance(block, dict)]
    return [text for text in texts if isinstance(text, str)]
