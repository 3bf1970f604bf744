"""OpenAI's responses and the tools of MCP servers, the pure parts: consent, items, prompts, choices."""

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
from gateway.core.mcp_server import ALWAYS, NEVER, Endpoint, ServerConfig, Use
from gateway.dialects.body import parse
from gateway.dialects.responses.conversation_prompt import DECLINED, UNANSWERED, ServedCalls, chat_messages
from gateway.dialects.responses.hosted_call_items import (
    IMAGE,
    approved_calls,
    listed_tools,
    outcome,
    outcome_text,
    read_consent,
    untold_listings,
)
from gateway.dialects.responses.response_turn import requested_servers, response_tools, told_url, tool_objects
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


def test_what_this_request_agrees_to_is_due_in_the_order_in_which_it_was_asked_for() -> None:
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
        ([REQUEST, answer("r1")], 2),  # of the request before
        ([REQUEST], 0),
    ],
)
def test_nothing_is_due_otherwise(given: list[Any], earlier: int) -> None:
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
def test_a_stray_answer_is_named(given: list[Any], earlier: int, number: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_consent(items(*given), earlier)
    assert refused.value.param == f"input[{number}].approval_request_id"


def test_consent_is_to_a_tool_that_is_there() -> None:
    consent = read_consent(items(REQUEST, answer("r1")))
    for there in (None, make_toolset([ServerListing(USE, [WRITE])])):
        with pytest.raises(InvalidRequest, match="read"):
            approved_calls(consent, there)


def test_a_call_is_the_models_and_its_output_the_tools() -> None:
    said, result = messages({**CALL, "id": "c1"}, tools=toolset("read"))
    assert said["tool_calls"][0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "notes_read", "arguments": "{}"},
    }
    assert result == {"role": "tool", "tool_call_id": "c1", "name": "notes_read", "content": "blue"}


def test_thoughts_belong_to_the_call_they_led_to() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    listed = {"type": "mcp_list_tools", "server_label": "notes", "tools": []}
    said, result = messages(thought, listed, CALL)
    assert (said["reasoning_content"], result.get("reasoning_content")) == ("hm", None)


def test_a_call_that_waits_waited_or_was_declined_is_told_as_such() -> None:
    results = {"r1": {"role": "tool", "tool_call_id": "r1", "content": "blue"}}
    given = (REQUEST, OTHER, answer("r1"), answer("r2", False, reason="No."))
    assert [m["content"] for m in messages(*given, results=results)] == ["", "blue", "", f"{DECLINED} No."]
    assert [m["content"] for m in messages(REQUEST)] == ["", UNANSWERED]


def test_a_call_that_ran_after_consent_is_told_once() -> None:
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
def test_a_failed_calls_reason_is_read(error: Any, read: str) -> None:
    assert outcome_text(items({**CALL, "output": None, "error": error})[0]) == read


def test_an_outcome_is_an_output_or_an_error() -> None:
    hosted = HostedTool("read", USE, READ)

    def of(output: ToolOutput | None, error: str = "") -> Any:
        return outcome(HostedCallEnded(0, 0, "c", hosted, "{}", output, error))

    picture = ToolImage("image/png", "AAAA")
    assert of(ToolOutput(["a", picture])) == {"output": f"a\n{IMAGE}", "error": None}
    assert of(ToolOutput(["a"], is_error=True))["error"]["content"] == [{"type": "text", "text": "a"}]
    assert of(None, "gone")["error"]["message"] == "gone"


def test_calls_are_open_beside_one_another_and_beside_the_text() -> None:
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


def test_what_the_conversation_tells_of_is_not_told_again() -> None:
    listing = ServerListing(USE, [READ, WRITE])
    told = {"type": "mcp_list_tools", "server_label": "notes", "tools": listed_tools(listing)}
    assert untold_listings([listing], [told]) == []
    assert untold_listings([listing], [told, {**told, "tools": []}]) == [listing]


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


def test_servers_of_the_request_ask_for_consent_and_the_operators_do_not() -> None:
    tools = [{"type": "mcp", "server_label": "a", "server_url": "http://a"}, {"type": "mcp", "server_label": "b"}]
    assert [wish.approval for wish in requested_servers(body(tools=tools))] == [ALWAYS, NEVER]
    told = [each["require_approval"] for each in tool_objects(body(tools=tools))]
    assert told == ["always", "never"]


@pytest.mark.parametrize(
    ("url", "told"),
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
def test_no_more_than_a_servers_host_is_told(url: str, told: str) -> None:
    assert told_url(url) == told
