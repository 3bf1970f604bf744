"""OpenAI's responses and the tools of MCP servers, the parts without a server: approval, items, prompts, choices."""

from typing import Any

import orjson
import pytest

from atelier.errors import InvalidRequest
from atelier.generation_types import ToolCallPiece
from atelier.submission import ToolChoice
from gateway.core.events import (
    ApprovalWanted,
    Delta,
    HostedCallArguments,
    HostedCallBegun,
    HostedCallEnded,
    HostedCallRuns,
    ToolCallDelta,
)
from gateway.core.hosted_tool import HostedTool, ServerTool, ToolImage, ToolOutput
from gateway.core.mcp_server_config import ALWAYS, NEVER, Endpoint, ServerConfig, Use
from gateway.dialects.body import parse
from gateway.dialects.responses.conversation_prompt import DECLINED, UNANSWERED, ServedCalls, chat_messages
from gateway.dialects.responses.hosted_call_items import (
    IMAGE,
    approved_calls,
    listed_tools,
    new_listings,
    outcome,
    outcome_text,
    read_consent,
)
from gateway.dialects.responses.response_turn import redacted_url, requested_servers, response_tools, tool_objects
from gateway.dialects.responses.responses_requests import ResponseBody
from gateway.dialects.responses.responses_stream import Output
from gateway.dialects.responses.stored_items import input_items
from gateway.tools.loop.toolset import ServerListing, Toolset, make_toolset

USE = Use(ServerConfig("notes", Endpoint("http://host/mcp")))
READ = ServerTool("read", "Reads.", {"type": "object"}, {"readOnlyHint": True})
WRITE = ServerTool("write")
REQUEST = {"type": "mcp_approval_request", "id": "r1", "server_label": "notes", "name": "read", "arguments": '{"a":1}'}
OTHER = {**REQUEST, "id": "r2", "name": "write"}
CALL = {"type": "mcp_call", "server_label": "notes", "name": "read", "arguments": "{}", "output": "blue"}


def toolset(*taken: str) -> Toolset:
    return make_toolset([ServerListing(USE, [READ, WRITE])], taken)


def body(**fields: Any) -> ResponseBody:
    return parse(orjson.dumps({"model": "m", "input": "hi", **fields}), ResponseBody)


def items(*given: Any) -> list[Any]:
    return input_items(body(input=list(given)).input, "resp_1", {})


def answer(id: str, approve: bool = True, **more: Any) -> Any:
    return {"type": "mcp_approval_response", "approval_request_id": id, "approve": approve, **more}


def messages(*given: Any, tools: Toolset | None = None, results: Any = None) -> list[Any]:
    found = items(*given)
    return chat_messages(None, found, 0, ServedCalls(read_consent(found), tools, results or {}))


def test_approved_calls_run_in_the_order_in_which_approval_was_requested() -> None:
    consent = read_consent(items(REQUEST, OTHER, answer("r2"), answer("r1")))
    calls = approved_calls(consent, toolset())
    assert [(call.number, call.id, call.tool.name, call.arguments) for call in calls] == [
        (0, "r1", "read", '{"a":1}'),
        (1, "r2", "write", '{"a":1}'),
    ]


@pytest.mark.parametrize(
    ("given", "earlier"),
    [
        ([REQUEST, answer("r1", False)], 0),
        ([REQUEST, answer("r1"), {**CALL, "approval_request_id": "r1"}], 0),
        ([REQUEST, answer("r1")], 2),  # from an earlier request
        ([REQUEST], 0),
    ],
)
def test_no_other_call_runs(given: list[Any], earlier: int) -> None:
    assert read_consent(items(*given), earlier).due == {}


@pytest.mark.parametrize(
    ("given", "earlier", "number"),
    [
        ([answer("r1")], 0, 0),
        ([answer("r1"), REQUEST], 0, 0),
        ([REQUEST, answer("r1"), answer("r1", False)], 0, 2),
        ([REQUEST, answer("r1"), answer("r1")], 2, 0),
        ([REQUEST, {**CALL, "approval_request_id": "r1"}, answer("r1")], 0, 2),
    ],
)
def test_an_unexpected_approval_is_rejected_by_field_path(given: list[Any], earlier: int, number: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_consent(items(*given), earlier)
    assert refused.value.param == f"input[{number}].approval_request_id"


def test_approving_an_unavailable_tool_is_rejected() -> None:
    consent = read_consent(items(REQUEST, answer("r1")))
    for there in (None, make_toolset([ServerListing(USE, [WRITE])])):
        with pytest.raises(InvalidRequest, match="read"):
            approved_calls(consent, there)


def test_a_call_becomes_an_assistant_message_and_its_output_a_tool_message() -> None:
    said, result = messages({**CALL, "id": "c1"}, tools=toolset("read"))
    assert said["tool_calls"][0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "notes_read", "arguments": "{}"},
    }
    assert result == {"role": "tool", "tool_call_id": "c1", "name": "notes_read", "content": "blue"}


def test_reasoning_belongs_to_the_call_that_follows_it() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    listed = {"type": "mcp_list_tools", "server_label": "notes", "tools": []}
    said, result = messages(thought, listed, CALL)
    assert (said["reasoning_content"], result.get("reasoning_content")) == ("hm", None)


def test_pending_unanswered_and_declined_calls_are_described_to_the_model() -> None:
    results = {"r1": {"role": "tool", "tool_call_id": "r1", "content": "blue"}}
    given = (REQUEST, OTHER, answer("r1"), answer("r2", False, reason="No."))
    assert [m["content"] for m in messages(*given, results=results)] == ["", "blue", "", f"{DECLINED} No."]
    assert [m["content"] for m in messages(REQUEST)] == ["", UNANSWERED]


def test_a_call_that_ran_after_approval_appears_once() -> None:
    ran = {**CALL, "id": "c1", "approval_request_id": "r1"}
    assert [m["role"] for m in messages(REQUEST, answer("r1"), ran)] == ["assistant", "tool"]


@pytest.mark.parametrize(
    ("error", "read"),
    [
        ("gone", "Error: gone"),
        ({"type": "http_error", "code": 500, "message": "gone"}, "Error: gone"),
        ({"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no ink"}, 7]}, "Error:\nno ink"),
        ({"type": "mcp_tool_execution_error", "content": "no ink"}, "Error:\nno ink"),
        ({"type": "mcp_tool_execution_error", "content": {"a": 1}}, 'Error:\n{"a":1}'),
        ({"type": "mcp_tool_execution_error"}, "Error:"),
    ],
)
def test_the_error_of_a_failed_call_is_shown_to_the_model(error: Any, read: str) -> None:
    assert outcome_text(items({**CALL, "output": None, "error": error})[0]) == read


def test_a_call_has_either_an_output_or_an_error() -> None:
    hosted = HostedTool("read", USE, READ)

    def of(output: ToolOutput | None, error: str = "") -> Any:
        return outcome(HostedCallEnded(0, 0, "c", hosted, "{}", output, error))

    picture = ToolImage("image/png", "AAAA")
    assert of(ToolOutput(["a", picture])) == {"output": f"a\n{IMAGE}", "error": None}
    assert of(ToolOutput(["a"], is_error=True))["error"]["content"] == [{"type": "text", "text": "a"}]
    assert of(None, "gone")["error"]["message"] == "gone"


def test_several_calls_and_text_can_be_in_progress_at_once() -> None:
    output = Output("resp_1", approved={"r1"})
    hosted = HostedTool("read", USE, READ)
    kinds: list[str] = []
    for event in (
        Delta(0, "a"),
        HostedCallBegun(0, 0, "r1", hosted),
        HostedCallArguments(0, 0, "{}"),
        HostedCallBegun(0, 1, "c1", hosted),
        HostedCallRuns(0, 0, "{}"),
        ToolCallDelta(0, ToolCallPiece(0, "f1", "mine", "{}")),
        HostedCallRuns(0, 1, ""),
        HostedCallEnded(0, 1, "c1", hosted, "", None, "gone"),
        HostedCallEnded(0, 0, "r1", hosted, "{}", ToolOutput(["blue"])),
        ApprovalWanted(0, 2, "c2", hosted, "[]"),
    ):
        kinds += [each["type"] for each in output.take(event)]
    output.end("completed")
    assert [(item["type"], item.get("status")) for item in output.items] == [
        ("message", "completed"),
        ("mcp_call", "completed"),
        ("mcp_call", "failed"),
        ("function_call", "completed"),
        ("mcp_approval_request", None),
    ]
    assert [item.get("approval_request_id") for item in output.items[1:3]] == ["r1", None]
    assert kinds.count("response.output_item.done") == len(output.items)


def test_a_listing_already_in_the_conversation_is_not_repeated() -> None:
    listing = ServerListing(USE, [READ, WRITE])
    listed = {"type": "mcp_list_tools", "server_label": "notes", "tools": listed_tools(listing)}
    assert new_listings([listing], [listed]) == []
    assert new_listings([listing], [listed, {**listed, "tools": []}]) == [listing]


@pytest.mark.parametrize(
    ("choice", "names", "kind"),
    [
        ({"type": "mcp", "server_label": "notes", "name": "read"}, ["read", "notes_read", "write"], ToolChoice.NAMED),
        ({"type": "mcp", "server_label": "notes"}, ["notes_read", "write"], ToolChoice.REQUIRED),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [
                    {"type": "mcp", "server_label": "notes", "name": "read"},
                    {"type": "function", "name": "read"},
                ],
            },
            ["read", "notes_read"],
            ToolChoice.AUTO,
        ),
    ],
)
def test_a_servers_tools_are_chosen_by_its_label(choice: Any, names: list[str], kind: ToolChoice) -> None:
    tools = response_tools(body(tools=[{"type": "function", "name": "read"}], tool_choice=choice), toolset("read"))
    assert tools
    assert ([tool.name for tool in tools.tools], tools.choice) == (names, kind)
    assert kind is not ToolChoice.NAMED or tools.name == "notes_read"


def test_servers_in_the_request_require_approval_and_the_operators_servers_do_not() -> None:
    tools = [{"type": "mcp", "server_label": "a", "server_url": "http://a"}, {"type": "mcp", "server_label": "b"}]
    assert [use.approval for use in requested_servers(body(tools=tools))] == [ALWAYS, NEVER]
    approvals = [each["require_approval"] for each in tool_objects(body(tools=tools))]
    assert approvals == ["always", "never"]


@pytest.mark.parametrize(
    ("url", "reported"),
    [
        ("https://host", "https://host"),
        ("https://host:8443/", "https://host:8443"),
        ("https://host/k3y/mcp", "https://host/<redacted>"),
        ("http://[::1]:80/mcp", "http://[::1]:80/<redacted>"),
        ("https://user:k3y@host", "https://host/<redacted>"),
        ("https://host?k3y", "https://host/<redacted>"),
        ("http://[k3y", "<redacted>"),
        ("http://host:k3y/", "<redacted>"),
    ],
)
def test_only_the_host_of_a_servers_url_is_reported(url: str, reported: str) -> None:
    assert redacted_url(url) == reported
