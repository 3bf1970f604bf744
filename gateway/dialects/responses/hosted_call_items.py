"""Calls of MCP servers' tools as items: lists of tools, outcomes, and approvals. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.events import HostedCallEnded
from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.tools.loop.toolset import HostedCall, ServerListing, Toolset

NO_REPLY = -32000  # JSON-RPC's first code for servers: of every failure that no tool reported
IMAGE = "[An image, which the item does not keep.]"


def listed_tools(listing: ServerListing) -> list[Json]:
    """The tools that the request allows."""
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": dict(tool.parameters),
            "annotations": dict(tool.annotations) or None,
        }
        for tool in listing.tools
    ]


def new_listings(listings: Sequence[ServerListing], items: Sequence[Json]) -> list[ServerListing]:
    """The listings that the conversation does not contain yet, with the same tools."""
    known = {item["server_label"]: item["tools"] for item in items if item["type"] == "mcp_list_tools"}
    return [listing for listing in listings if known.get(listing.use.server.label) != listed_tools(listing)]


def output_text(output: ToolOutput) -> str:
    return "\n".join(IMAGE if isinstance(piece, ToolImage) else piece for piece in output.pieces)


def outcome(ended: HostedCallEnded) -> Json:
    """An item's output and error, one of which is null."""
    if ended.output is None:
        return {"output": None, "error": protocol_error(ended.error)}
    text = output_text(ended.output)
    if ended.output.is_error:
        return {"output": None, "error": execution_error(text)}
    return {"output": text, "error": None}


def protocol_error(message: str) -> Json:
    """The error of a call that did not reach its tool, or whose reply did not arrive."""
    return {"type": "mcp_protocol_error", "code": NO_REPLY, "message": message}


def execution_error(text: str) -> Json:
    """An error that the tool reported."""
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}


def outcome_text(item: Json) -> str:
    """A call's outcome in the prompt: what the model read when the call ended, without images."""
    error = item.get("error")
    if error is None:
        return item.get("output") or ""
    if error["type"] == "mcp_tool_execution_error":
        return "\n".join(["Error:", *_texts(error["content"])])
    return f"Error: {error['message']}"


def _texts(content: object) -> list[str]:
    """The texts of MCP's content, or of any other JSON that a client sends as an error's content."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return [] if content is None else [orjson.dumps(content).decode()]
    texts = [block.get("text") for block in content if isinstance(block, dict)]
    return [text for text in texts if isinstance(text, str)]


@dataclass(frozen=True, slots=True)
class Consent:
    """Approvals in a conversation, by ids of the approval requests.

    `answers`: the approval responses. `ran`: requests whose call has an item of its own. `due`: requests whose call
    is to run now, in order, each with the path of its approval in the request.
    """

    answers: Mapping[str, Json] = field(default_factory=dict)
    ran: frozenset[str] = frozenset()
    due: Mapping[str, tuple[Json, str]] = field(default_factory=dict)


def read_consent(items: Sequence[Json], earlier: int = 0) -> Consent:
    """`earlier`: how many of the items precede the request's own input. Raises InvalidRequest.

    Calls that the request's own input approves are due, unless it also has the call's item: then the client keeps
    the conversation itself, and the call has run already.
    """
    requests: dict[str, Json] = {}
    answers: dict[str, Json] = {}
    places: dict[str, str] = {}  # paths of the approvals in this request
    ran: set[str] = set()
    for number, item in enumerate(items, -earlier):
        match item["type"]:
            case "mcp_approval_request":
                requests[item["id"]] = item
            case "mcp_call" if item.get("approval_request_id"):
                ran.add(item["approval_request_id"])
            case "mcp_approval_response":
                id = item["approval_request_id"]
                if number >= 0:
                    places[id] = f"input[{number}].approval_request_id"
                    _reject_stray(id, places[id], requests, {*answers, *ran})
                answers[id] = item
    due = {id: (item, places[id]) for id, item in requests.items() if id in places and id not in ran}
    return Consent(answers, frozenset(ran), {id: each for id, each in due.items() if answers[id]["approve"]})


def _reject_stray(id: str, path: str, requests: Mapping[str, Json], answered: set[str]) -> None:
    if id not in requests:
        raise InvalidRequest(f'{path}: the conversation has no earlier approval request "{id}"', param=path)
    if id in answered:
        raise InvalidRequest(f'{path}: "{id}" has been answered already', param=path)


def approved_calls(consent: Consent, toolset: Toolset | None) -> list[HostedCall]:
    """The calls that are due. Raises InvalidRequest if this request's servers have no such tool."""
    calls: list[HostedCall] = []
    for number, (id, (item, path)) in enumerate(consent.due.items()):
        label, name = item["server_label"], item["name"]
        tool = toolset.find(label, name) if toolset else None
        if tool is None:
            raise InvalidRequest(f'{path}: this request has no tool "{name[:64]}" of a server "{label}"', param=path)
        calls.append(HostedCall(number, id, tool, item["arguments"]))
    return calls
