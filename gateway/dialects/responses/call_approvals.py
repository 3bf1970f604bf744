"""What a conversation says of the calls that wait for a person's consent. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.tools.loop.toolset import HostedCall, Toolset


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
