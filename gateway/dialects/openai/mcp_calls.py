"""Calls of MCP servers' tools in chat completions, which have no place for them: `mcp_calls`, ours. Pure."""

from collections.abc import Iterable

from atelier.json_types import Json
from gateway.core.events import Elicited, Event, HostedCallArguments, HostedCallBegun, HostedCallEnded, HostedEvent


def call_delta(event: HostedEvent) -> Json | None:
    """What a chunk adds to the call with the same index; None where it adds nothing."""
    match event:
        case HostedCallBegun(_, number, id, tool):
            head = {"id": id, "type": "mcp_call", "server_label": tool.label, "name": tool.name}
            return {"index": number, **head, "arguments": ""}
        case HostedCallArguments(_, number, text):
            return {"index": number, "arguments": text}
        case HostedCallEnded(_, number):
            return {"index": number, **_outcome(event)}
    return None


def elicitation(event: Elicited) -> Json:
    head = {"id": event.question_id, "server_label": event.tool.label, "name": event.tool.name}
    return {**head, **event.question.told}


def whole_calls(events: Iterable[Event]) -> list[Json]:
    """Of a whole answer."""
    ended = sorted((each for each in events if isinstance(each, HostedCallEnded)), key=lambda each: each.number)
    return [
        {
            "id": each.id,
            "type": "mcp_call",
            "server_label": each.tool.label,
            "name": each.tool.name,
            "arguments": each.arguments,
            **_outcome(each),
        }
        for each in ended
    ]


def _outcome(ended: HostedCallEnded) -> Json:
    output = ended.output.text if ended.output is not None and ended.failure is None else None
    return {"status": "completed" if ended.failure is None else "failed", "output": output, "error": ended.failure}
