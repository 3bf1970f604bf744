"""OpenAI's responses that call tools of MCP servers, over the real wire, with the official client."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from gateway.dialects.responses.conversation_prompt import DECLINED, UNANSWERED
from gateway.dialects.responses.hosted_call_items import IMAGE
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway
from tests.support.gateway.response_events import checked_events, checked_response
from tests.support.gateway.scripted_turns import ANSWERS, READS, call, follow, images_of, messages_of, tools_of
from tests.support.mcp.tool_server import NOTE, ToolServer

ASKS = {"text": "May I?", "reasoning": "", "tool_calls": [call("fail", reason="x"), call("read_note", name="n1")]}
SOME = {"always": {"tool_names": ["read_note"]}}
SECRET = "s3cr3t-of-the-request"


@pytest.fixture
async def gateway(registry: FakeRegistry, server: ToolServer) -> AsyncIterator[RunningGateway]:
    """Shut down before the server whose connections it holds."""
    registry.models[KEY] = model_message(made_for_tools=True)
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as running:
        yield running


def tool(server: ToolServer, **more: Any) -> dict[str, Any]:
    tool = {"type": "mcp", "server_label": "notes", "server_url": server.url, "require_approval": "never", **more}
    return {name: value for name, value in tool.items() if value is not None}


async def ask(client: openai.AsyncOpenAI, server: ToolServer, **more: Any) -> Response:
    fields: Any = {"input": "What is in my note?", "tools": [tool(server)], **more}
    response: Response = await client.responses.create(model=KEY, **fields)
    return checked_response(response.to_dict())


async def stream(gateway: RunningGateway, server: ToolServer, **more: Any) -> list[Any]:
    body = {"model": KEY, "input": "What is in my note?", "tools": [tool(server)], "stream": True, **more}
    async with gateway.client() as http:
        return checked_events((await http.post("/v1/responses", json=body)).text)


def consent(request: Any, approve: bool = True, **more: Any) -> Any:
    return {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": approve, **more}


def kinds(response: Response) -> list[str]:
    return [item.type for item in response.output]


def of_kind(response: Any, kind: str) -> list[Any]:
    return [item for item in response.output if item.type == kind]


async def test_an_answer_continues_with_the_tools_result(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, READS, ANSWERS)
    response = await ask(client, server)
    assert kinds(response) == ["mcp_list_tools", "reasoning", "mcp_call", "message"]
    assert (response.status, response.output_text) == ("completed", "It is blue.")
    [listed] = of_kind(response, "mcp_list_tools")
    assert [each.name for each in listed.tools] == ["read_note", "fail", "picture", "wait"]
    reads = listed.tools[0]
    assert (reads.description, reads.input_schema["required"]) == ("What is written in a note.", ["name"])
    assert reads.annotations == {"readOnlyHint": True}
    [called] = of_kind(response, "mcp_call")
    assert (called.server_label, called.name, called.arguments) == ("notes", "read_note", '{"name": "n1"}')
    assert (called.status, called.output, called.error, called.approval_request_id) == ("completed", NOTE, None, None)
    assert server.calls == [("read_note", "n1")]
    assert response.usage
    assert response.usage.output_tokens == 3 + 1 + 2 + 3  # reasoning, a name, arguments, text
    assert len(requests) == 2


async def test_a_stream_has_openais_events_and_ends_with_the_whole_answer(
    client: openai.AsyncOpenAI, gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS, READS, ANSWERS)
    events = await stream(gateway, server)
    types = [event.type.removeprefix("response.") for event in events]
    assert types[:6] == [
        *("created", "in_progress", "output_item.added", "mcp_list_tools.in_progress", "mcp_list_tools.completed"),
        "output_item.done",
    ]
    begins = next(number for number, event in enumerate(events) if "mcp_call" in event.type) - 1
    pieces = types.count("mcp_call_arguments.delta")
    assert types[begins : begins + pieces + 5] == [
        *("output_item.added", "mcp_call.in_progress", *["mcp_call_arguments.delta"] * pieces),
        *("mcp_call_arguments.done", "mcp_call.completed", "output_item.done"),
    ]
    added = events[begins].item
    assert (added.status, added.arguments, added.output) == ("in_progress", "", None)
    deltas = [event.delta for event in events if event.type == "response.mcp_call_arguments.delta"]
    assert "".join(deltas) == '{"name": "n1"}'
    final = events[-1].response
    assert final.output == [event.item for event in events if event.type == "response.output_item.done"]
    places = {event.item_id: event.output_index for event in events if hasattr(event, "item_id")}
    assert places == {item.id: number for number, item in enumerate(final.output)}
    whole = await ask(client, server)
    assert [{**item.to_dict(), "id": None} for item in final.output] == [
        {**item.to_dict(), "id": None} for item in whole.output
    ]


async def test_the_official_client_streams_the_calls(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS)
    tools: Any = [tool(server)]
    async with client.responses.stream(model=KEY, input="hi", tools=tools) as events:
        seen = [event.type async for event in events]
        final = await events.get_final_response()
    assert "response.mcp_call.completed" in seen
    assert final.output_text == "It is blue."


async def test_concurrent_calls_are_distinguished(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    calls = [call("read_note", name=f"n{number}") for number in range(3)]
    await follow(registry, {"text": "", "tool_calls": calls}, ANSWERS)
    events = await stream(gateway, server)
    called = of_kind(events[-1].response, "mcp_call")
    assert [item.arguments for item in called] == [each["arguments"] for each in calls]
    assert [item.output[:3] for item in called] == ["n0:", "n1:", "n2:"]
    running = [event.type for event in events if event.type.startswith("response.mcp_call.")]
    assert running == ["response.mcp_call.in_progress"] * 3 + ["response.mcp_call.completed"] * 3


async def test_errors_have_openais_form(client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer) -> None:
    calls = [call("fail", reason="no ink"), {"name": "fail", "arguments": "[1]"}]
    requests = await follow(registry, {"text": "", "tool_calls": calls}, ANSWERS, ANSWERS)
    response = await ask(client, server)
    said, refused = of_kind(response, "mcp_call")
    assert (said.status, said.output, said.error.type) == ("failed", None, "mcp_tool_execution_error")
    assert "no ink" in said.error.content[0]["text"]
    assert (refused.status, refused.error.type) == ("failed", "mcp_protocol_error")
    assert "not a JSON object" in refused.error.message
    await ask(client, server, input="so?", previous_response_id=response.id)
    read, later = ([m["content"] for m in messages_of(each) if m["role"] == "tool"] for each in requests[1:])
    assert read == later
    assert later[0].startswith("Error:")


async def test_a_conversation_continues_with_its_calls(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    mine = {"type": "function", "name": "read_note"}
    renamed = {**READS, "tool_calls": [call("notes_read_note", name="n1")]}
    requests = await follow(registry, renamed, ANSWERS, ANSWERS, ANSWERS)
    first = await ask(client, server, tools=[mine, tool(server)])
    second = await ask(client, server, input="And?", previous_response_id=first.id, tools=[mine, tool(server)])
    assert kinds(second) == ["message"]  # the tools are the same as they were
    said, result = messages_of(requests[2])[1:3]
    assert (said["reasoning_content"], said["tool_calls"][0]["function"]["name"]) == ("I read it.", "notes_read_note")
    assert (result["content"], result["tool_call_id"]) == (NOTE, said["tool_calls"][0]["id"])
    assert [message["role"] for message in messages_of(requests[2])] == [
        *("user", "assistant", "tool", "assistant", "user")
    ]
    await ask(client, server, input=[*(item.to_dict() for item in first.output), {"role": "user", "content": "And?"}])
    assert messages_of(requests[3])[0]["tool_calls"][0]["function"]["name"] == "read_note"
    listed = await client.responses.input_items.list(second.id, order="asc")
    assert [item.type for item in listed.data][:4] == ["message", "mcp_list_tools", "reasoning", "mcp_call"]


async def test_an_image_is_shown_once_and_named_later(registry: FakeRegistry, server: ToolServer) -> None:
    requests = await follow(registry, {"text": "", "tool_calls": [call("picture")]}, ANSWERS)
    registry.models[KEY] = model_message(made_for_tools=True, made_for_vision=True)
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as gateway:
        events = await stream(gateway, server)
    [called] = of_kind(events[-1].response, "mcp_call")
    assert (called.status, called.output) == ("completed", IMAGE)
    assert len(images_of(requests[-1])) == 1


async def test_calls_of_a_requests_own_server_wait_for_approval_unless_that_is_disabled(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, READS, ANSWERS)
    asking = await ask(client, server, tools=[tool(server, require_approval=None)])
    assert (asking.status, kinds(asking)[-1], server.calls) == ("completed", "mcp_approval_request", [])
    [request] = of_kind(asking, "mcp_approval_request")
    assert (request.server_label, request.name, request.arguments) == ("notes", "read_note", '{"name": "n1"}')
    assert asking.tools[0].require_approval == "always"  # type: ignore[union-attr]
    events = await ask(client, server, input=[consent(request)], previous_response_id=asking.id)
    [called] = of_kind(events, "mcp_call")
    assert (called.approval_request_id, called.output, called.arguments) == (request.id, NOTE, request.arguments)
    assert (kinds(events), events.output_text) == (["mcp_call", "message"], "It is blue.")
    said, result = messages_of(requests[1])[1:]
    assert (said["tool_calls"][0]["id"], said["reasoning_content"]) == (request.id, "I read it.")
    assert (result["tool_call_id"], result["content"]) == (request.id, NOTE)


async def test_calls_without_required_approval_run_at_once(
    gateway: RunningGateway, client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, ASKS, ANSWERS)
    asking = await stream(gateway, server, tools=[tool(server, require_approval=SOME)])
    final = asking[-1].response
    assert kinds(final) == ["mcp_list_tools", "message", "mcp_call", "mcp_approval_request"]
    assert server.calls == [("fail", "x")]
    [request] = of_kind(final, "mcp_approval_request")
    later = [consent(request), {"role": "user", "content": "Be quick."}]
    events = await stream(gateway, server, input=later, previous_response_id=final.id)
    types = [event.type.removeprefix("response.") for event in events]
    assert types[2:7] == [
        *("output_item.added", "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done"),
        "mcp_call.completed",
    ]
    roles = [message["role"] for message in messages_of(requests[1])]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "user"]
    assert messages_of(requests[1])[4]["content"] == NOTE
    assert server.calls[1:] == [("read_note", "n1")]


async def test_a_declined_call_does_not_run_and_the_model_receives_the_reason(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, ASKS, ANSWERS, ANSWERS, ANSWERS)
    asking = await ask(client, server, tools=[tool(server, require_approval="always")])
    first, second = of_kind(asking, "mcp_approval_request")
    answers = [consent(second), consent(first, approve=False, reason="It would fail.")]
    done = await ask(client, server, input=answers, previous_response_id=asking.id)
    assert [item.approval_request_id for item in of_kind(done, "mcp_call")] == [second.id]
    results = [message["content"] for message in messages_of(requests[1]) if message["role"] == "tool"]
    assert results == [f"{DECLINED} It would fail.", NOTE]  # in the order of the calls
    await ask(client, server, input="And now?", previous_response_id=done.id)
    results = [message["content"] for message in messages_of(requests[2]) if message["role"] == "tool"]
    assert sorted(results) == sorted([f"{DECLINED} It would fail.", NOTE])
    assert server.calls == [("read_note", "n1")]
    await ask(client, server, input="Never mind.", previous_response_id=asking.id)
    results = [message["content"] for message in messages_of(requests[3]) if message["role"] == "tool"]
    assert results == [UNANSWERED, UNANSWERED]


async def test_a_client_that_keeps_its_conversation_approves_in_it(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS, ANSWERS)
    items: list[Any] = [{"role": "user", "content": "What is in my note?"}]
    tools = [tool(server, require_approval="always")]
    asking = await ask(client, server, input=items, tools=tools, store=False)
    [request] = of_kind(asking, "mcp_approval_request")
    items += [*(item.to_dict() for item in asking.output), consent(request)]
    done = await ask(client, server, input=items, tools=tools, store=False)
    assert [item.output for item in of_kind(done, "mcp_call")] == [NOTE]
    items += [*(item.to_dict() for item in done.output), {"role": "user", "content": "Thanks."}]
    thanked = await ask(client, server, input=items, tools=tools, store=False)
    assert (kinds(thanked), server.calls) == (["message"], [("read_note", "n1")])  # and did not run again


async def test_an_operators_server_requires_the_approval_of_its_file_whatever_the_request_says(
    registry: FakeRegistry, server: ToolServer, tmp_path: Path
) -> None:
    entry = {"url": server.url, "requireApproval": ["read_note"]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"my notes": entry}}))
    await follow(registry, ASKS, ASKS)
    registry.models[KEY] = model_message(made_for_tools=True)
    async with running_gateway(registry, home=tmp_path) as gateway:
        for more in ({}, {"require_approval": "never"}):
            events = await stream(gateway, server, tools=[{"type": "mcp", "server_label": "my notes", **more}])
            [request] = of_kind(events[-1].response, "mcp_approval_request")
            assert (request.server_label, request.name) == ("my notes", "read_note")
    assert server.calls == [("fail", "x")] * 2


async def test_an_approval_without_a_request_is_rejected(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS)
    asking = await ask(client, server, tools=[tool(server, require_approval="always")])
    [request] = of_kind(asking, "mcp_approval_request")
    other = consent(request) | {"approval_request_id": "mcpr_other"}
    before: Any = {"previous_response_id": asking.id}
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"input": [consent(request)]}, 0),
        ({"input": [other], **before}, 0),
        ({"input": [consent(request), consent(request)], **before}, 1),
        ({"input": [consent(request)], **before, "tools": []}, 0),
        ({"input": [consent(request)], **before, "tools": [tool(server, allowed_tools=["fail"])]}, 0),
    ]
    for more, number in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(client, server, **more)
        assert refused.value.param == f"input[{number}].approval_request_id"
    done = await ask(client, server, input=[consent(request)], **before)
    with pytest.raises(openai.BadRequestError, match="answered already"):
        await ask(client, server, input=[consent(request)], previous_response_id=done.id)
    assert server.calls == [("read_note", "n1")]


async def test_no_secret_of_a_server_is_returned_or_stored(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS, READS, ANSWERS)
    url = f"{server.url}?key={SECRET}"
    secret = tool(server, server_url=url, headers={"x-key": SECRET}, authorization=SECRET)
    answered = await ask(client, server, tools=[secret])
    assert answered.tools[0].server_url == server.url.removesuffix("/mcp") + "/<redacted>"  # type: ignore[union-attr]
    queued = await ask(client, server, tools=[secret], background=True)
    done = await finished(client, queued.id)
    for response in (answered, queued, done):
        assert SECRET not in response.to_json()
    assert {answered.id, queued.id} <= set(registry.responses)
    assert all(SECRET.encode() not in record.SerializeToString() for record in registry.responses.values())


async def finished(client: openai.AsyncOpenAI, id: str) -> Response:
    async with asyncio.timeout(PATIENCE):
        while (response := await client.responses.retrieve(id)).status in ("queued", "in_progress"):
            pass
    return checked_response(response.to_dict())


async def test_a_background_response_calls_tools_and_accepts_approvals(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS)
    tools = [tool(server, require_approval="always")]
    asking = await finished(client, (await ask(client, server, background=True, tools=tools)).id)
    [request] = of_kind(asking, "mcp_approval_request")
    more: Any = {"input": [consent(request)], "previous_response_id": asking.id, "background": True}
    done = await finished(client, (await ask(client, server, **more)).id)
    assert (kinds(done), done.output_text) == (["mcp_call", "message"], "It is blue.")


async def test_a_cancelled_background_response_stops_its_calls(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    queued = await ask(client, server, background=True)
    await asyncio.wait_for(server.begun.wait(), PATIENCE)
    assert (await client.responses.cancel(queued.id)).status == "cancelled"
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE)


async def test_a_disconnect_stops_the_calls_of_a_stream(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    asking = asyncio.create_task(stream(gateway, server))
    await asyncio.wait_for(server.begun.wait(), PATIENCE)
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE)


async def test_hosted_calls_are_limited_and_the_clients_functions_are_not(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    calls = [call("read_note", name="n1"), call("read_note", name="n2")]
    requests = await follow(registry, {"text": "", "tool_calls": calls}, ANSWERS)
    mine = {"type": "function", "name": "mine"}
    response = await ask(client, server, max_tool_calls=1, tools=[mine, tool(server)])
    assert response.max_tool_calls == 1
    assert [item.status for item in of_kind(response, "mcp_call")] == ["completed", "failed"]
    assert (server.calls, tools_of(requests[1])) == ([("read_note", "n1")], ["mine"])


async def test_the_clients_own_calls_end_the_answer_after_the_servers_have_run(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    both = {"text": "", "tool_calls": [call("mine"), call("read_note", name="n1")]}
    requests = await follow(registry, both, ANSWERS)
    tools = [{"type": "function", "name": "mine"}, tool(server)]
    first = await ask(client, server, tools=tools)
    assert kinds(first) == ["mcp_list_tools", "function_call", "mcp_call"]
    output = {"type": "function_call_output", "call_id": of_kind(first, "function_call")[0].call_id, "output": "7"}
    done = await ask(client, server, input=[output], previous_response_id=first.id, tools=tools)
    assert done.output_text == "It is blue."
    said, *results = messages_of(requests[1])[1:]
    assert len(said["tool_calls"]) == 2
    assert sorted(each["content"] for each in results) == ["7", NOTE]


async def test_a_call_truncated_by_the_limit_is_incomplete_and_not_run(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, {"text": "", "tool_calls": [call("read_note", name="n1")]}, ANSWERS)
    response = await ask(client, server, max_output_tokens=2)
    [called] = of_kind(response, "mcp_call")
    assert (response.status, called.status, server.calls) == ("incomplete", "incomplete", [])
    await ask(client, server, input="Go on.", previous_response_id=response.id)
    assert [message["role"] for message in messages_of(requests[1])] == ["user", "user"]


async def test_a_call_is_forced_only_once(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, READS, ANSWERS)
    choice = {"type": "mcp", "server_label": "notes", "name": "read_note"}
    response = await ask(client, server, tool_choice=choice)
    assert [request.prompt.tools.choice.name for request in requests] == ["NAMED", "AUTO"]  # type: ignore[union-attr]
    assert response.tool_choice.to_dict() == choice  # type: ignore[union-attr]


async def test_an_unreachable_server_is_an_error_that_names_it(gateway: RunningGateway, registry: FakeRegistry) -> None:
    body = {"model": KEY, "input": "hi", "tools": [tool(ToolServer("http://127.0.0.1:1/mcp"))]}
    more: list[dict[str, Any]] = [{}, {"stream": True}, {"background": True}]
    async with gateway.client() as http:
        replies = [await http.post("/v1/responses", json=body | each) for each in more]
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["type"]) == (424, "mcp_connection_error")
        assert "notes" in reply.json()["error"]["message"]
    assert registry.responses == {}


BIG = {"name": "big", "input_schema": {"maximum": 2**70}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "mcp", "server_label": "files"}]}, "tools[0].server_label"),
    ({"tools": [{"type": "mcp", "server_label": "a/b"}]}, "tools[0].server_label"),
    ({"tools": [{"type": "mcp", "server_label": "a", "connector_id": "c"}]}, "tools[0].connector_id"),
    ({"tool_choice": {"type": "mcp"}}, "tool_choice.server_label"),
    ({"tool_choice": {"type": "mcp", "server_label": "other"}}, "tool_choice.server_label"),
    ({"tool_choice": {"type": "mcp", "server_label": "notes", "name": "other"}}, "tool_choice.name"),
    ({"input": [{"type": "mcp_approval_response", "approve": True}]}, "input[0].approval_request_id"),
    ({"input": [{"type": "mcp_call", "server_label": "a", "name": "b"}]}, "input[0].arguments"),
    (
        {"input": [{"type": "mcp_list_tools", "server_label": "a", "tools": [BIG]}]},
        "input[0].tools[0].input_schema",
    ),
    ({"max_tool_calls": 0}, "max_tool_calls"),
]


async def test_an_invalid_request_is_rejected_by_field_name(gateway: RunningGateway, server: ToolServer) -> None:
    async with gateway.client() as http:
        for more, param in WRONG:
            reply = await http.post(
                "/v1/responses", json={"model": KEY, "input": "hi", "tools": [tool(server)], **more}
            )
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
