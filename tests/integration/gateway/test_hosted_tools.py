"""Answers that call tools of MCP servers, in chat completions and LM Studio's chat, over the real wire."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from gateway.tools.loop.tool_loop import NO_MORE
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, events_of, running_gateway, until
from tests.support.gateway.scripted_turns import ANSWERS, READS, call, follow, images_of, messages_of, tools_of
from tests.support.mcp.tool_server import NOTE, ToolServer
from tests.support.models.pictures import red
from worker.engine.interface import ChatPrompt
from worker.engine.scripted import prompt_text
from worker.engine.scripted_sequence import TOKEN

HELLO = [{"role": "user", "content": "What is in my note?"}]
CHATS = ("/v1/chat/completions", "/api/v1/chat")


@pytest.fixture
async def gateway(registry: FakeRegistry, server: ToolServer) -> AsyncIterator[RunningGateway]:
    """Shut down before the server whose connections it holds."""
    registry.models[KEY] = model_message(made_for_tools=True)
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as running:
        yield running


def mcp_tool(server: ToolServer, **more: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": "notes", "server_url": server.url, **more}


def openai_body(server: ToolServer, **more: Any) -> dict[str, Any]:
    return {"model": KEY, "messages": HELLO, "tools": [mcp_tool(server)], **more}


def lmstudio_body(server: ToolServer, **more: Any) -> dict[str, Any]:
    ephemeral = {"type": "ephemeral_mcp", "server_label": "notes", "server_url": server.url}
    return {"model": KEY, "input": "What is in my note?", "integrations": [ephemeral], **more}


def body_for(path: str, server: ToolServer, **more: Any) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"model": KEY, "input": "What?", "tools": [mcp_tool(server, require_approval="never")], **more}
    return openai_body(server, **more) if path.startswith("/v1") else lmstudio_body(server, **more)


async def post(gateway: RunningGateway, path: str, body: dict[str, Any]) -> httpx.Response:
    async with gateway.client() as http:
        return await http.post(path, json=body)


async def test_a_chat_completion_continues_with_the_tools_result(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, READS, ANSWERS)
    reply = (await post(gateway, CHATS[0], openai_body(server))).json()
    [choice] = reply["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "It is blue.")
    assert choice["message"]["reasoning_content"] == "I read it."
    assert choice["message"]["mcp_calls"] == [
        {
            "id": "call_00",
            "type": "mcp_call",
            "server_label": "notes",
            "name": "read_note",
            "arguments": '{"name": "n1"}',
            "status": "completed",
            "output": NOTE,
            "error": None,
        }
    ]
    assert server.calls == [("read_note", "n1")]
    first, second = requests
    assert tools_of(first) == tools_of(second) == ["read_note", "fail", "picture", "wait"]
    *_, said, result = messages_of(second)
    assert (said["reasoning_content"], said["tool_calls"][0]["function"]["name"]) == ("I read it.", "read_note")
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", NOTE, "call_00")
    prompts = [TOKEN.findall(prompt_text(request.prompt)) for request in requests]
    assert reply["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_a_stream_reports_the_call_and_its_end(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS)
    body = openai_body(server, stream=True, stream_options={"include_usage": True})
    events = events_of((await post(gateway, CHATS[0], body)).text)
    assert events[-1] == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events[:-2]]
    calls = [delta["mcp_calls"][0] for delta in deltas if "mcp_calls" in delta]
    assert calls[0] == {
        "index": 0,
        "id": "call_00",
        "type": "mcp_call",
        "server_label": "notes",
        "name": "read_note",
        "arguments": "",
    }
    assert "".join(each["arguments"] for each in calls[:-1]) == '{"name": "n1"}'
    assert calls[-1] == {"index": 0, "status": "completed", "output": NOTE, "error": None}
    assert "".join(delta.get("content") or "" for delta in deltas) == "It is blue."
    assert [event["choices"][0]["finish_reason"] for event in events[:-2]].count("stop") == 1


async def test_lmstudios_older_chat_has_the_calls_and_its_statistics(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS, READS, ANSWERS)
    whole = (await post(gateway, "/api/v0/chat/completions", openai_body(server))).json()
    assert [each["output"] for each in whole["choices"][0]["message"]["mcp_calls"]] == [NOTE]
    assert whole["stats"]["predicted_tokens_count"] == whole["usage"]["completion_tokens"] > 0
    events = events_of((await post(gateway, "/api/v0/chat/completions", openai_body(server, stream=True))).text)
    (stats,) = [event["stats"] for event in events if isinstance(event, dict) and event.get("stats")]
    assert stats["predicted_tokens_count"] == whole["stats"]["predicted_tokens_count"]


async def test_lmstudios_chat_has_the_call_among_its_items_and_keeps_it(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, READS, ANSWERS, {"text": "Again: blue."})
    first = (await post(gateway, CHATS[1], lmstudio_body(server))).json()
    provider = {"type": "ephemeral_mcp", "server_label": "notes"}
    assert first["output"] == [
        {"type": "reasoning", "content": "I read it."},
        {
            "type": "tool_call",
            "tool": "read_note",
            "arguments": {"name": "n1"},
            "output": json.dumps([{"type": "text", "text": NOTE}], separators=(",", ":")),
            "provider_info": provider,
        },
        {"type": "message", "content": "It is blue."},
    ]
    more = {"model": KEY, "input": "And again?", "previous_response_id": first["response_id"]}
    second = (await post(gateway, CHATS[1], more)).json()
    assert second["output"] == [{"type": "message", "content": "Again: blue."}]
    roles = [message["role"] for message in messages_of(requests[-1])]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert messages_of(requests[-1])[2]["content"] == NOTE


async def test_a_continued_chat_has_the_tool_results_that_the_model_read(
    registry: FakeRegistry, server: ToolServer
) -> None:
    calls = [call("fail", reason="no ink"), call("picture"), call("read_note", name="n1")]
    requests = await follow(registry, {"text": "", "reasoning": "Hm.", "tool_calls": calls}, ANSWERS)
    registry.models[KEY] = model_message(made_for_tools=True, made_for_vision=True)
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as gateway:
        first = (await post(gateway, CHATS[1], lmstudio_body(server))).json()
        more = {"model": KEY, "input": "And again?", "previous_response_id": first["response_id"]}
        await post(gateway, CHATS[1], more)
    _, answered, again = requests
    read = messages_of(answered)
    assert [message["role"] for message in read] == ["user", "assistant", "tool", "tool", "tool"]
    assert messages_of(again)[: len(read)] == read
    assert len(images_of(answered)) == 1
    assert images_of(again) == images_of(answered)


async def test_lmstudios_stream_ends_with_the_whole_answer(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS, READS, ANSWERS)
    events = events_of((await post(gateway, CHATS[1], lmstudio_body(server, stream=True, store=False))).text)
    kinds = [event["type"] for event in events]
    assert kinds[kinds.index("reasoning.start") :] == [
        *["reasoning.start", *["reasoning.delta"] * kinds.count("reasoning.delta"), "reasoning.end"],
        *["tool_call.start", "tool_call.arguments", "tool_call.success"],
        *["message.start", *["message.delta"] * kinds.count("message.delta"), "message.end", "chat.end"],
    ]
    whole = (await post(gateway, CHATS[1], lmstudio_body(server, store=False))).json()
    assert events[-1]["result"]["output"] == whole["output"]


async def test_calls_of_one_step_run_concurrently_and_their_results_keep_their_order(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    calls = [call("read_note", name=f"n{number}") for number in range(3)]
    requests = await follow(registry, {"text": "", "tool_calls": calls}, ANSWERS)
    await post(gateway, CHATS[0], openai_body(server))
    results = [message["content"] for message in messages_of(requests[-1]) if message["role"] == "tool"]
    assert [result[:2] for result in results] == ["n0", "n1", "n2"]


async def test_a_failed_tool_is_reported_to_the_model_and_to_the_client(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, {"text": "", "tool_calls": [call("fail", reason="no ink")]}, ANSWERS)
    reply = (await post(gateway, CHATS[0], openai_body(server))).json()
    [failed] = reply["choices"][0]["message"]["mcp_calls"]
    assert (failed["status"], failed["output"]) == ("failed", None)
    assert "no ink" in failed["error"]
    result = messages_of(requests[-1])[-1]["content"]
    assert result.startswith("Error:")
    assert "no ink" in result


@pytest.mark.parametrize("sees", [False, True])
async def test_an_image_is_shown_to_a_vision_model_and_named_to_others(
    registry: FakeRegistry, server: ToolServer, sees: bool
) -> None:
    requests = await follow(registry, {"text": "", "tool_calls": [call("picture")]}, ANSWERS)
    registry.models[KEY] = model_message(made_for_tools=True, made_for_vision=sees)
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as gateway:
        reply = await post(gateway, CHATS[0], openai_body(server))
    assert reply.json()["choices"][0]["message"]["content"] == "It is blue."
    assert len(images_of(requests[-1])) == sees
    assert ("cannot see" in str(messages_of(requests[-1])[-1]["content"])) != sees


@pytest.mark.parametrize("path", CHATS)
async def test_only_the_tools_that_are_allowed_are_offered(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, path: str
) -> None:
    requests = await follow(registry, ANSWERS)
    body = body_for(path, server)
    (body.get("tools") or body["integrations"])[0]["allowed_tools"] = ["read_note", "nothing"]
    await post(gateway, path, body)
    assert tools_of(requests[-1]) == ["read_note"]


async def test_only_read_only_tools_are_offered_on_request(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(registry, ANSWERS)
    await post(gateway, CHATS[0], openai_body(server, tools=[mcp_tool(server, allowed_tools={"read_only": True})]))
    assert tools_of(requests[-1]) == ["read_note"]


async def test_equal_names_are_distinguished_by_their_server(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    mine = {"type": "function", "function": {"name": "fail"}}
    requests = await follow(registry, {"text": "", "tool_calls": [call("notes_fail", reason="x")]}, ANSWERS)
    await post(gateway, CHATS[0], openai_body(server, tools=[mine, mcp_tool(server)]))
    assert tools_of(requests[0]) == ["fail", "read_note", "notes_fail", "picture", "wait"]
    assert server.calls == [("fail", "x")]


async def test_the_clients_own_calls_end_the_answer_after_the_servers_have_run(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    mine = {"type": "function", "function": {"name": "mine"}}
    await follow(registry, {"text": "", "tool_calls": [call("read_note", name="n1"), call("mine")]}, ANSWERS)
    [choice] = (await post(gateway, CHATS[0], openai_body(server, tools=[mine, mcp_tool(server)]))).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [each["function"]["name"] for each in choice["message"]["tool_calls"]] == ["mine"]
    assert [each["output"] for each in choice["message"]["mcp_calls"]] == [NOTE]


async def test_a_call_is_forced_only_once(gateway: RunningGateway, registry: FakeRegistry, server: ToolServer) -> None:
    requests = await follow(registry, READS, ANSWERS)
    choice = {"type": "mcp", "server_label": "notes", "name": "read_note"}
    await post(gateway, CHATS[0], openai_body(server, tool_choice=choice))
    choices = [request.prompt.tools.choice.name for request in requests]  # type: ignore[union-attr]
    assert choices == ["NAMED", "AUTO"]


async def test_an_answer_that_never_stops_calling_is_stopped(registry: FakeRegistry, server: ToolServer) -> None:
    requests = await follow(registry, {"text": "so", "tool_calls": [call("read_note", name="n1")]})
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"], mcp_steps=3) as gateway:
        reply = (await post(gateway, CHATS[0], openai_body(server))).json()
    assert len(server.calls) == 2
    assert [bool(tools_of(request)) for request in requests] == [True, True, False]
    assert reply["choices"][0]["message"]["content"] == "sososo"


async def test_calls_of_tools_that_are_no_longer_offered_end_the_answer(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    """The client's own functions still are, so calls in the output are parsed."""
    requests = await follow(registry, {"text": "so", "tool_calls": [call("read_note", name="n1")]})
    mine = {"type": "function", "function": {"name": "mine"}}
    [choice] = (await post(gateway, CHATS[0], openai_body(server, tools=[mine, mcp_tool(server)]))).json()["choices"]
    assert [tools_of(request)[:2] for request in requests] == [["mine", "read_note"]] * 2 + [["mine"]]
    assert len(server.calls) == 2
    assert choice["finish_reason"] == "stop"
    assert [each["error"] for each in choice["message"]["mcp_calls"]] == [None, None, NO_MORE]


async def test_a_tool_excluded_by_tool_choice_is_not_called(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, {"text": "", "tool_calls": [call("read_note", name="n1")]}, ANSWERS)
    allowed = [{"type": "mcp", "server_label": "notes", "name": "picture"}]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": allowed}
    body = body_for("/v1/responses", server, tool_choice=choice)
    reply = (await post(gateway, "/v1/responses", body)).json()
    assert server.calls == []
    [called] = [item for item in reply["output"] if item["type"] == "mcp_call"]
    assert (called["status"], called["error"]["message"]) == ("failed", NO_MORE)
    assert reply["output"][-1]["content"][0]["text"] == "It is blue."


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("path", [*CHATS, "/v1/responses"])
async def test_a_disconnect_cancels_the_call_at_the_server(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, path: str, streams: bool
) -> None:
    requests = await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    async with gateway.client() as http:
        asking = asyncio.create_task(http.post(path, json=body_for(path, server, stream=streams)))
        await asyncio.wait_for(server.begun.wait(), PATIENCE)
        asking.cancel()
        await asyncio.wait([asking])
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE)
    await until(lambda: gateway.gateway.admission.active + gateway.gateway.admission.waiting == 0)
    assert len(requests) == 1


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("path", [*CHATS, "/v1/responses"])
async def test_a_disconnect_during_a_later_step_ends_it(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, path: str, streams: bool
) -> None:
    registry.script = {"step_seconds": 0.005}
    requests = await follow(registry, READS, {"text": "a " * 5000, "reasoning": ""})
    engine = registry.workers[KEY].engine
    async with gateway.client() as http:
        asking = asyncio.create_task(http.post(path, json=body_for(path, server, stream=streams)))
        await until(lambda: len(requests) == 2 and engine.figures().active)
        asking.cancel()
        await asyncio.wait([asking])
    await until(lambda: gateway.gateway.admission.active + gateway.gateway.admission.waiting == 0)
    await until(lambda: engine.figures().active == 0)


@pytest.mark.parametrize("path", [*CHATS, "/v1/responses"])
async def test_a_worker_that_dies_while_calls_run_is_replaced_for_the_next_step(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, path: str
) -> None:
    await follow(registry, {"text": "", "tool_calls": [call("wait")]})
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    asking = asyncio.create_task(post(gateway, path, body_for(path, server, stream=True)))
    await asyncio.wait_for(server.begun.wait(), PATIENCE)
    registry.script = {"turns": [ANSWERS]}
    await registry.kill_worker(KEY)
    server.released.set()
    text = (await asking).text
    assert "blue" in text
    assert "error" not in [event.get("type") for event in events_of(text) if isinstance(event, dict)]
    assert registry.loads == 1


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("path", [*CHATS, "/v1/responses"])
async def test_shutdown_ends_running_calls_with_an_error(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, path: str, streams: bool
) -> None:
    await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    asking = asyncio.create_task(post(gateway, path, body_for(path, server, stream=streams)))
    await asyncio.wait_for(server.begun.wait(), PATIENCE)
    assert gateway.gateway.admission.active == 1
    await gateway.gateway.drain(0)
    reply = await asking
    assert reply.status_code == (200 if streams else 503)
    ended = events_of(reply.text)[-1 if path != CHATS[1] else -2] if streams else reply.json()
    assert "The server stopped before" in json.dumps(ended)
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE)
    assert gateway.gateway.admission.active + gateway.gateway.admission.waiting == 0


@pytest.mark.parametrize("path", [*CHATS, "/v1/responses"])
async def test_an_answer_that_calls_tools_is_finished_within_the_grace_period(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, path: str
) -> None:
    """Its later steps are admitted with it; the draining gateway would not admit them separately."""
    await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    asking = asyncio.create_task(post(gateway, path, body_for(path, server)))
    await asyncio.wait_for(server.begun.wait(), PATIENCE)
    draining = asyncio.create_task(gateway.gateway.drain(PATIENCE))
    await asyncio.sleep(0)
    server.released.set()
    assert "It is blue." in (await asking).text
    await asyncio.wait_for(draining, PATIENCE)


async def test_an_answer_keeps_its_admission_in_a_full_queue(registry: FakeRegistry, server: ToolServer) -> None:
    await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    options: dict[str, Any] = {"mcp_requests": True, "outbound_hosts": ["127.0.0.1"], "max_queued": 1}
    async with running_gateway(registry, **options) as gateway:
        asking = asyncio.create_task(post(gateway, CHATS[0], openai_body(server)))
        await asyncio.wait_for(server.begun.wait(), PATIENCE)
        assert (await post(gateway, CHATS[0], {"model": KEY, "messages": HELLO})).status_code == 503
        server.released.set()
        assert (await asking).json()["choices"][0]["message"]["content"] == "It is blue."
        assert gateway.gateway.admission.active + gateway.gateway.admission.waiting == 0


async def test_shutdown_ends_the_wait_for_the_list_of_tools(registry: FakeRegistry) -> None:
    await registry.start_instance()
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp"
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as gateway:
        asking = asyncio.create_task(post(gateway, CHATS[0], openai_body(ToolServer(url))))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        await gateway.gateway.drain(0)
        assert (await asking).status_code == 503
    listener.close()


@pytest.mark.parametrize("streams", [True, False])
async def test_a_requests_timeout_ends_its_calls(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer, streams: bool
) -> None:
    requests = await follow(registry, {"text": "", "tool_calls": [call("wait")]}, ANSWERS)
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    reply = await post(gateway, CHATS[0], openai_body(server, timeout=2.0, stream=streams))
    error = (events_of(reply.text)[-1] if streams else reply.json())["error"]
    assert error["code"] == "timeout", reply.text
    await asyncio.wait_for(server.cancelled.wait(), PATIENCE)
    assert len(requests) < 3
    assert gateway.gateway.admission.active + gateway.gateway.admission.waiting == 0


async def test_images_beyond_the_limit_of_a_request_are_omitted(registry: FakeRegistry, server: ToolServer) -> None:
    """They would fail the whole answer."""
    requests = await follow(registry, {"text": "", "tool_calls": [call("picture")] * 40}, ANSWERS)
    registry.models[KEY] = model_message(made_for_tools=True, made_for_vision=True)
    async with running_gateway(registry, mcp_requests=True, outbound_hosts=["127.0.0.1"]) as gateway:
        url = "data:image/png;base64," + base64.b64encode(red(10, 8)).decode()
        brought = [{"type": "image_url", "image_url": {"url": url}}] * 30
        messages = [{"role": "user", "content": [*brought, {"type": "text", "text": "And others?"}]}]
        reply = await post(gateway, CHATS[0], openai_body(server, messages=messages))
    assert reply.json()["choices"][0]["message"]["content"] == "It is blue.", reply.text
    prompt = requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert len(prompt.images) == 64
    assert str(messages_of(requests[-1])).count("too many") == 6


async def test_arguments_other_than_an_object_do_not_reach_the_template(
    gateway: RunningGateway, registry: FakeRegistry, server: ToolServer
) -> None:
    requests = await follow(
        registry, {"text": "", "tool_calls": [{"name": "read_note", "arguments": '{"name": "n'}]}, ANSWERS
    )
    reply = (await post(gateway, CHATS[0], openai_body(server))).json()
    assert reply["choices"][0]["message"]["content"] == "It is blue."
    *_, said, result = messages_of(requests[-1])
    assert said["tool_calls"][0]["function"]["arguments"] == "{}"
    assert "not a JSON object" in result["content"]


@pytest.mark.parametrize("path", CHATS)
async def test_an_unreachable_server_is_an_error_that_names_it(
    gateway: RunningGateway, registry: FakeRegistry, path: str
) -> None:
    await registry.start_instance()
    reply = await post(gateway, path, body_for(path, ToolServer("http://127.0.0.1:1/mcp")))
    assert reply.status_code == 424
    assert reply.json()["error"]["type"] == "mcp_connection_error"
    assert "notes" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", CHATS)
async def test_requests_may_name_servers_only_if_the_operator_allows_it(
    registry: FakeRegistry, server: ToolServer, path: str
) -> None:
    async with running_gateway(registry) as gateway:
        reply = await post(gateway, path, body_for(path, server))
    assert reply.status_code == 403
    assert "ATELIER_MCP_REQUESTS" in reply.json()["error"]["message"]


async def test_private_addresses_are_not_reached(registry: FakeRegistry, server: ToolServer) -> None:
    async with running_gateway(registry, mcp_requests=True) as gateway:
        reply = await post(gateway, CHATS[0], openai_body(server))
    assert reply.status_code == 424
    assert server.calls == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "mcp", "server_label": "files"}]}, "tools[0].server_label"),
        ({"tools": [{"type": "mcp"}]}, "tools[0].server_label"),
        ({"tools": [{"type": "mcp", "server_label": "a/b"}]}, "tools[0].server_label"),
        ({"tools": [{"type": "mcp", "server_label": "a", "server_url": 7}]}, "tools[0].server_url"),
        ({"tools": [{"type": "mcp", "server_label": "a", "server_url": "x", "connector_id": "c"}]}, "connector_id"),
        ({"tools": [{"type": "mcp", "server_label": "a", "require_approval": "always"}]}, "require_approval"),
        ({"tools": [{"type": "mcp", "server_label": "a", "server_url": "x", "headers": {"Host": "b"}}]}, "headers"),
    ],
)
async def test_an_invalid_tool_is_named(
    gateway: RunningGateway, server: ToolServer, more: dict[str, Any], param: str
) -> None:
    reply = await post(gateway, CHATS[0], openai_body(server, **more))
    assert (reply.status_code, reply.json()["error"]["param"].endswith(param)) == (400, True), reply.text


async def test_the_official_client_reads_a_stream_with_calls(
    client: openai.AsyncOpenAI, registry: FakeRegistry, server: ToolServer
) -> None:
    await follow(registry, READS, ANSWERS)
    tools: Any = [mcp_tool(server)]
    stream: Any = await client.chat.completions.create(model=KEY, messages=HELLO, tools=tools, stream=True)  # type: ignore[call-overload]
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "It is blue."
