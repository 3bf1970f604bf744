"""OpenAI's responses over the real wire, with the official client."""

import asyncio
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, until
from tests.support.gateway.response_events import checked_events, checked_response
from worker.engine.scripted import ScriptedEngine

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CALL = {"name": "weather", "arguments": '{"city": "Oslo"}'}


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The prompts that the engine received."""
    seen: list[Any] = []
    submit = ScriptedEngine.submit

    def noted(engine: ScriptedEngine, source: Any, request: Any) -> None:
        seen.append(request.prompt)
        submit(engine, source, request)

    monkeypatch.setattr(ScriptedEngine, "submit", noted)
    return seen


async def post(gateway: RunningGateway, **body: Any) -> Any:
    async with gateway.client() as http:
        return await http.post("/v1/responses", json={"model": KEY, "input": "one two three", **body})


async def test_a_response_has_every_field_that_the_client_knows(
    client: openai.AsyncOpenAI, gateway: RunningGateway
) -> None:
    response = await client.responses.create(model=KEY, input="one two three", metadata={"a": "b"}, top_p=0.5)
    assert (response.object, response.status, response.output_text) == ("response", "completed", "one two three")
    assert response.id.startswith("resp_")
    assert response.usage
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 3, 6)
    assert (response.metadata, response.top_p, response.temperature) == ({"a": "b"}, 0.5, 0.8)
    reply = await post(gateway, tools=[WEATHER], text={"format": {"type": "json_schema", "name": "n", "schema": {}}})
    checked = checked_response(reply.json())
    assert set(Response.model_fields) - set(reply.json()) == {
        *("access_programs", "conversation", "image", "input_transformations", "moderation", "prompt"),
        *("prompt_cache_diagnostics", "prompt_cache_options", "prompt_cache_retention", "tool_usage"),
    }
    assert (checked.tools[0].name, checked.store) == ("weather", True)  # type: ignore[union-attr,attr-defined]


async def test_a_stream_has_its_events_in_order(registry: FakeRegistry, gateway: RunningGateway) -> None:
    registry.script = {"reasoning": "hm so", "text": "It is", "tool_calls": [CALL]}
    events = checked_events((await post(gateway, stream=True, tools=[WEATHER])).text)
    kinds: list[str] = []
    for event in events:
        kind = event.type.removeprefix("response.")
        kinds += [] if kinds[-1:] == [kind] else [kind]
    assert kinds == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    final = events[-1].response
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output == [event.item for event in events if event.type == "response.output_item.done"]
    assert final.output[2].arguments == '{"city": "Oslo"}'
    for kind, whole in (
        ("reasoning_text", "hm so"),
        ("output_text", "It is"),
        ("function_call_arguments", CALL["arguments"]),
    ):
        pieces = [event.delta for event in events if event.type == f"response.{kind}.delta"]
        assert "".join(pieces) == whole
    places = {event.item_id: event.output_index for event in events if hasattr(event, "item_id")}
    assert places == {item.id: number for number, item in enumerate(final.output)}
    assert final.usage.output_tokens_details.reasoning_tokens == 2


async def test_a_stream_equals_an_answer_that_is_not_streamed(registry: FakeRegistry, gateway: RunningGateway) -> None:
    registry.script = {"reasoning": "hm", "text": "so be it", "tool_calls": [CALL, CALL]}

    def essence(response: Any) -> Any:
        own = {"id", "created_at", "completed_at"}
        output = [{**item, "id": None} for item in response["output"]]
        return {name: value for name, value in response.items() if name not in own} | {"output": output}

    whole = (await post(gateway, tools=[WEATHER])).json()
    streamed = checked_events((await post(gateway, tools=[WEATHER], stream=True)).text)[-1].response
    assert essence(streamed.to_dict()) == essence(checked_response(whole).to_dict())


async def test_the_official_client_streams(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    registry.script = {"text": "one two", "tool_calls": [CALL]}
    async with client.responses.stream(model=KEY, input="hi", tools=[WEATHER]) as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        final = await stream.get_final_response()
    assert (text, final.output_text, final.status) == ("one two", "one two", "completed")
    assert final.output[1].parsed_arguments == {"city": "Oslo"}  # type: ignore[union-attr]


def in_thread(gateway: RunningGateway) -> Any:
    """The blocking client's answers, requested one after another."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0) as client:
        first = client.responses.create(model=KEY, input="one")
        with client.responses.stream(model=KEY, input="two", previous_response_id=first.id) as stream:
            second = stream.get_final_response()
        items = list(client.responses.input_items.list(second.id, order="asc", limit=1))
        return first, client.responses.retrieve(second.id), items


async def test_the_blocking_client_works_too(gateway: RunningGateway) -> None:
    first, second, items = await asyncio.to_thread(in_thread, gateway)
    assert (first.output_text, second.output_text, second.previous_response_id) == ("one", "two", first.id)
    assert [item.content[0].text for item in items] == ["one", "one", "two"]


async def test_an_answer_is_parsed_into_a_pydantic_model(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    class Sum(BaseModel):
        total: int

    registry.script = {"text": '{"total": 3}'}
    parsed = await client.responses.parse(model=KEY, input="1 + 2", text_format=Sum)
    assert parsed.output_parsed == Sum(total=3)
    assert parsed.text
    assert parsed.text.format
    assert parsed.text.format.type == "json_schema"


async def test_a_tool_is_called_and_answered_by_id(
    client: openai.AsyncOpenAI, registry: FakeRegistry, prompts: list[Any]
) -> None:
    registry.script = {"reasoning": "hm", "text": "", "tool_calls": [CALL]}
    first = await client.responses.create(
        model=KEY, input="Weather in Oslo?", tools=[WEATHER], instructions="Be brief."
    )
    call = first.output[-1]
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = await client.responses.create(model=KEY, input=[result], previous_response_id=first.id, tools=[WEATHER])
    assert second.previous_response_id == first.id
    assert prompts[-1].messages == [
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call.call_id, "type": "function", "function": CALL}],
            "reasoning_content": "hm",
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": "rain"},
    ]
    assert prompts[0].messages[0] == {"role": "system", "content": "Be brief."}


async def test_a_tool_is_called_and_answered_without_the_store(
    client: openai.AsyncOpenAI, registry: FakeRegistry, prompts: list[Any]
) -> None:
    registry.script = {"reasoning": "hm", "text": "let me see", "tool_calls": [CALL]}
    history: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    first = await client.responses.create(
        model=KEY, input=history, tools=[WEATHER], store=False, include=["reasoning.encrypted_content"]
    )
    history += first.output
    history.append({"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "rain"})  # type: ignore[union-attr]
    await client.responses.create(model=KEY, input=history, tools=[WEATHER], store=False)
    said = prompts[-1].messages[1]
    assert (said["content"], said["reasoning_content"]) == ("let me see", "hm")
    assert said["tool_calls"][0]["function"] == CALL
    assert prompts[-1].messages[2]["content"] == "rain"
    assert registry.responses == {}


async def test_items_of_stored_responses_can_be_referenced(
    client: openai.AsyncOpenAI, prompts: list[Any], registry: FakeRegistry
) -> None:
    first = await client.responses.create(model=KEY, input="one")
    said: Any = {"type": "item_reference", "id": first.output[0].id}
    await client.responses.create(
        model=KEY, input=[{"role": "user", "content": "one"}, said, {"role": "user", "content": "go on"}]
    )
    assert [message["content"] for message in prompts[-1].messages] == ["one", "one", "go on"]
    for id in ("msg_unknown", said["id"][:-1] + "9"):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=KEY, input=[{"type": "item_reference", "id": id}])
        assert caught.value.param == "input[0].id"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_truncated_answer_is_incomplete(gateway: RunningGateway, stream: bool) -> None:
    reply = await post(gateway, max_output_tokens=2, stream=stream)
    if stream:
        last = checked_events(reply.text)[-1]
        assert last.type == "response.incomplete"
        response = last.response
    else:
        response = checked_response(reply.json())
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.output[0].status, response.output_text) == ("incomplete", "one two")


async def test_an_answer_without_text_is_an_empty_message(registry: FakeRegistry, gateway: RunningGateway) -> None:
    registry.script = {"text": ""}
    events = checked_events((await post(gateway, stream=True)).text)
    assert [item.type for item in events[-1].response.output] == ["message"]
    assert events[-1].response.output_text == ""


async def test_logprobs_are_returned_where_they_are_requested(gateway: RunningGateway) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = checked_response((await post(gateway, **asked)).json())
    events = checked_events((await post(gateway, stream=True, **asked)).text)
    returned = whole.output[0].content[0].logprobs  # type: ignore[union-attr]
    assert [(each.token, len(each.top_logprobs)) for each in returned] == [("one", 2), (" two", 2), (" three", 2)]  # type: ignore[union-attr]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [each.token for event in deltas for each in event.logprobs] == ["one", " two", " three"]


async def test_the_settings_of_a_request_reach_the_worker(gateway: RunningGateway, prompts: list[Any]) -> None:
    await post(gateway, reasoning={"effort": "none", "summary": "auto"}, tools=[WEATHER], tool_choice="required")
    assert prompts[-1].arguments == {"reasoning_effort": "none", "enable_thinking": False}
    assert prompts[-1].tools.tools[0].strict is True
    await post(gateway, tools=[WEATHER], tool_choice="none")
    assert prompts[-1].tools is None


async def test_a_worker_that_dies_ends_the_stream_with_its_failure(
    registry: FakeRegistry, gateway: RunningGateway
) -> None:
    registry.script = {"text": "a b c d", "hang_after_tokens": 2}
    await registry.start_instance()
    async with (
        gateway.client() as http,
        http.stream("POST", "/v1/responses", json={"model": KEY, "input": "x", "stream": True}) as reply,
    ):
        text = ""
        async for piece in reply.aiter_text():
            text += piece
            if "output_text.delta" in text and registry.workers:
                await registry.kill_worker(KEY)
    *_, last = checked_events(text)
    assert (last.type, last.response.status, last.response.error.code) == ("response.failed", "failed", "server_error")
    assert last.response.error.type == "worker_lost"
    assert "response.completed" not in text


IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}
FILE = {"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}
ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [IMAGE]}, "input[0].content[0].image_url"),
        ({"input": [FILE]}, "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}, "input[0].summary[0].text"),
        ({"input": [{"id": ""}]}, "input[0].id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_url": "http://x"}]}, "tools[0].server_label"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [{**WEATHER, "parameters": {"type": "array"}}]}, "tools[0].parameters.type"),
        ({"tools": [{**WEATHER, "parameters": {"maximum": 2**70}}]}, "tools[0].parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": ALLOWED}, "tool_choice.tools[0].name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {"maximum": 2**70}}}}, "text.format.schema"),
        ({"truncation": "some"}, "truncation"),
        ({"metadata": {"a": 5}}, "metadata.a"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"store": "yes"}, "store"),
        ({"background": True, "store": False}, "store"),
        ({"background": True, "stream": True}, "stream"),
        ({"previous_response_id": "resp_nothing"}, "previous_response_id"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"instructions": 5}, "instructions"),
        ({"preset": 5}, "preset"),
        ({"ttl": "x"}, "ttl"),
    ],
)
async def test_invalid_input_is_a_400_that_names_the_field(gateway: RunningGateway, body: Any, param: str) -> None:
    for stream in (False, True):
        reply = await post(gateway, **{"stream": stream, **body})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_unknown_fields_are_ignored_and_an_unknown_model_is_a_404(gateway: RunningGateway) -> None:
    assert (await post(gateway, surprise=1, context_management=[], service_tier="flex")).status_code == 200
    reply = await post(gateway, model="acme/tinny", background=True)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_disconnect_frees_the_sequence(registry: FakeRegistry, gateway: RunningGateway) -> None:
    registry.script = {"text": "a b c d", "hang_after_tokens": 2}
    async with gateway.client() as http:
        async with http.stream("POST", "/v1/responses", json={"model": KEY, "input": "x", "stream": True}) as reply:
            await anext(reply.aiter_text())
            assert gateway.gateway.admission.active == 1
        await until(lambda: gateway.gateway.admission.active == 0)
        await until(lambda: registry.workers[KEY].engine.figures().active == 0)
    assert registry.responses == {}
