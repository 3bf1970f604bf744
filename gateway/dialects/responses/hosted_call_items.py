"""Calls of MCP servers' tools as items: the lists of tools, the outcomes, and the consent that calls wait for. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.tools.loop.toolset import HostedCall, ServerListing, Toolset

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


@dataclass(frozen=True, slots=True)
class Consent:
    """By ids of the items that asked for it.

    `answers`: the items that answer them. `ran`: those whose call has an item of its own. `due`: those whose call
    is to run now, in the order in which they asked, with the place of the answer in the request.
    """

    answers: Mapping[str, Json] = field(default_factory=dict)
    ran: frozenset[str] = frozenset()
    due: Mapping[str, tuple[Json, str]] = field(default_factory=dict)


def read_consent(items: Sequence[Json], earlier: int = 0) -> Consent:
    """`earlier`: how many of the items are of the conversation that goes on. InvalidRequest.

    What this request's own input agrees to runs, unless the input has the call's item as well: then it is a
    conversation that its client keeps, and the call a thing of the past.
    """
    asked: dict[str, Json] = {}
    answers: dict[str, Json] = {}
    places: dict[str, str] = {}  # of this request's answers
    ran: set[str] = set()
    for number, item in enumerate(items, -earlier):
        match item["type"]:
            case "mcp_approval_request":
                asked[item["id"]] = item
            case "mcp_call" if item.get("approval_request_id"):
                ran.add(item["approval_request_id"])
            case "mcp_approval_response":
                id = item["approval_request_id"]
                if number >= 0:
                    places[id] = f"input[{number}].approval_request_id"
                    _refuse_stray(id, places[id], asked, {*answers, *ran})
                answers[id] = item
    due = {id: (item, places[id]) for id, item in asked.items() if id in places and id not in ran}
    return Consent(answers, frozenset(ran), {id: each for id, each in due.items() if answers[id]["approve"]})


def _refuse_stray(id: str, path: str, asked: Mapping[str, Json], answered: set[str]) -> None:
    if id not in asked:
        raise InvalidRequest(f'{path}: the conversation has no approval request "{id}" before it', param=path)
    if id in answered:
        raise InvalidRequest(f'{path}: "{id}" has been answered already', param=path)


def approved_calls(consent: Consent, toolset: Toolset | None) -> list[HostedCall]:
    """Exactly what was asked for; InvalidRequest where this request's servers have no such tool."""
    calls: list[HostedCall] = []
    for number, (id, (item, path)) in enumerate(consent.due.items()):
        label, name = item["server_label"], item["name"]
        tool = toolset.find(label, name) if toolset else None
        if tool is None:
            raise InvalidRequest(
                f'{path}: the tools of this request have no "{name[:64]}" of a server "{label}" to run', param=path
            )
        calls.append(HostedCall(number, id, tool, item["arguments"]))
    return calls
