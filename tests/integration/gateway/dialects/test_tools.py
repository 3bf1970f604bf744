"""Tools, reasoning and template arguments over the real wire, with the official clients."""

import asyncio
import json
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from pydantic import BaseModel, SecretStr

from atelier.submission import Tool, ToolChoice, Tools
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, events_of
from worker.engine.interface import ChatPrompt, Request

HELLO = [{"role": "user", "content": "How is Oslo?"}]
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Of now.", "parameters": PLACE}}
CALLS = [
    {"name": "weather", "arguments": '{"place": "Oslo"}'},
    {"name": "weather", "arguments": '{"place": "Bergen in Norway"}'},
]
SCRIPT = {"reasoning": "I look it up.", "text": "", "tool_calls": CALLS}


@pytest.fixture
async def asked(registry: FakeRegistry) -> list[Request]:
    """Every request that reaches the worker, which follows the script above."""
    registry.script = dict(SCRIPT)
    await registry.start_instance()
    engine = registry.workers[KEY].engine
    submit, requests = engine.submit, []

    def keep(source: Any, request: Request) -> None:
        requests.append(request)
        submit(source, request)

    engine.submit = keep  # type: ignore[method-assign]
    return requests


def prompt_of(request: Request) -> ChatPrompt:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


def called(message: ChatCompletionMessage) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    return [
        (call.function.name, call.function.arguments) for call in message.tool_calls or [] if call.type == "function"
    ]


async def whole(client: openai.AsyncOpenAI, **fields: Any) -> ChatCompletion:
    reply: ChatCompletion = await client.chat.completions.create(model=KEY, messages=HELLO, **fields)
    return reply


async def streamed(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    """The same from a stream, assembled by the official client."""
    async with client.chat.completions.stream(model=KEY, messages=HELLO, **fields) as stream:
        return await stream.get_final_completion()


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_calls_are_returned_to_the_client_and_their_results_accepted(
    client: openai.AsyncOpenAI, registry: FakeRegistry, asked: list[Request], ask: Any
) -> None:
    first = (await ask(client, tools=[TOOL], seed=7)).choices[0]
    assert first.finish_reason == "tool_calls"
    assert called(first.message) == [(call["name"], call["arguments"]) for call in CALLS]
    assert first.message.reasoning_content == "I look it up."
    assert not first.message.content
    assert prompt_of(asked[0]).tools == Tools([Tool("weather", "Of now.", PLACE)])

    registry.script.update({"text": "It rains.", "tool_calls": [], "reasoning": ""})
    calls = [{"id": call.id, "type": "function", "function": call.function} for call in first.message.tool_calls]
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in calls),
    ]
    reply = await client.chat.completions.create(model=KEY, messages=history, tools=[TOOL])  # type: ignore[arg-type]
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("It rains.", "stop")
    _, assistant, *results = prompt_of(asked[1]).messages
    assert [(call["id"], call["function"]["arguments"]) for call in assistant["tool_calls"]] == [
        (call.id, call.function.arguments) for call in first.message.tool_calls
    ]
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in calls]


async def test_a_stream_of_calls_has_parts_that_clients_can_join(gateway: RunningGateway, asked: list[Request]) -> None:
    body = {"model": KEY, "messages": HELLO, "tools": [TOOL], "stream": True}
    async with gateway.client() as http:
        events = events_of((await http.post("/v1/chat/completions", json=body)).text)
    assert events.pop() == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "I look it up."
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", [])]
    for index, call in enumerate(CALLS):
        first, *rest = [piece for piece in pieces if piece["index"] == index]
        assert (first["type"], first["function"]["name"], bool(first["id"])) == ("function", "weather", True)
        assert all(set(piece) == {"index", "function"} and set(piece["function"]) == {"arguments"} for piece in rest)
        assert "".join(piece["function"]["arguments"] for piece in [first, *rest]) == call["arguments"]
    assert [event["choices"][0]["finish_reason"] for event in events][-2:] == [None, "tool_calls"]


@pytest.mark.parametrize("base", ["/v1", "/api/v0"])
async def test_a_stream_equals_a_reply_that_is_not_streamed(
    client: openai.AsyncOpenAI, gateway: RunningGateway, asked: list[Request], base: str
) -> None:
    fields: dict[str, Any] = {"tools": [TOOL], "seed": 7, "n": 2}
    dialect = client.with_options(base_url=f"{gateway.url}{base}")
    one = await whole(dialect, **fields)
    other = await streamed(dialect, **fields, stream_options={"include_usage": True})
    assert one.usage == other.usage
    assert asked[0].sampling == asked[1].sampling
    for left, right in zip(one.choices, other.choices, strict=True):
        assert (left.index, left.finish_reason) == (right.index, right.finish_reason)
        assert (left.message.content or "") == (right.message.content or "")
        assert called(left.message) == called(right.message)
        assert left.message.reasoning_content == right.message.reasoning_content  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("choice", "kind", "name"),
    [
        ("required", ToolChoice.REQUIRED, ""),
        ({"type": "function", "function": {"name": "weather"}}, ToolChoice.NAMED, "weather"),
    ],
)
async def test_the_tool_choice_reaches_the_worker(
    client: openai.AsyncOpenAI, asked: list[Request], choice: Any, kind: ToolChoice, name: str
) -> None:
    await whole(client, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    tools = prompt_of(asked[0]).tools
    assert tools is not None
    assert (tools.choice, tools.name, tools.one_at_a_time) == (kind, name, True)


async def test_tools_are_omitted_where_none_may_be_called(client: openai.AsyncOpenAI, asked: list[Request]) -> None:
    reply = await whole(client, tools=[TOOL], tool_choice="none")
    assert prompt_of(asked[0]).tools is None
    assert reply.choices[0].message.tool_calls is None


async def test_a_request_with_functions_gets_a_function_call(client: openai.AsyncOpenAI, asked: list[Request]) -> None:
    functions: Any = [TOOL["function"]]
    reply = await whole(client, functions=functions, function_call={"name": "weather"})
    message = reply.choices[0].message
    assert message.function_call
    assert (message.function_call.name, message.function_call.arguments) == ("weather", CALLS[0]["arguments"])
    assert (message.tool_calls, reply.choices[0].finish_reason) == (None, "function_call")
    names, arguments, reasons = [], [], []
    async for chunk in await client.chat.completions.create(
        model=KEY,
        messages=HELLO,
        functions=functions,
        stream=True,  # type: ignore[arg-type]
    ):
        if piece := chunk.choices[0].delta.function_call:
            names.append(piece.name)
            arguments.append(piece.arguments or "")
        reasons.append(chunk.choices[0].finish_reason)
    assert names[0] == "weather"
    assert not any(names[1:])
    assert "".join(arguments) == CALLS[0]["arguments"]
    assert reasons[-1] == "function_call"


class Report(BaseModel):
    place: str
    degrees: int


async def test_a_pydantic_model_is_filled_in(
    client: openai.AsyncOpenAI, registry: FakeRegistry, asked: list[Request]
) -> None:
    registry.script.update({"text": '{"place": "Oslo", "degrees": 4}', "tool_calls": []})
    reply = await client.chat.completions.parse(model=KEY, messages=HELLO, response_format=Report)
    assert reply.choices[0].message.parsed == Report(place="Oslo", degrees=4)
    assert asked[0].constraint is not None


async def test_arguments_of_a_tool_made_of_a_pydantic_model_are_read(
    client: openai.AsyncOpenAI, registry: FakeRegistry, asked: list[Request]
) -> None:
    call = {"name": "Report", "arguments": '{"place": "Oslo", "degrees": 4}'}
    registry.script.update({"tool_calls": [call]})
    reply = await client.chat.completions.parse(
        model=KEY, messages=HELLO, tools=[openai.pydantic_function_tool(Report)]
    )
    assert reply.choices[0].message.tool_calls
    assert reply.choices[0].message.tool_calls[0].function.parsed_arguments == Report(place="Oslo", degrees=4)
    tools = prompt_of(asked[0]).tools
    assert tools is not None
    assert tools.tools[0].strict


async def test_reasoning_effort_and_template_arguments_reach_the_worker(
    client: openai.AsyncOpenAI, asked: list[Request]
) -> None:
    history: Any = [*HELLO, {"role": "assistant", "content": "Wet.", "reasoning_content": "It rains."}, *HELLO]
    await client.chat.completions.create(
        model=KEY, messages=history, reasoning_effort="none", extra_body={"chat_template_kwargs": {"today": "Friday"}}
    )
    prompt = prompt_of(asked[0])
    assert prompt.arguments == {"reasoning_effort": "none", "enable_thinking": False, "today": "Friday"}
    assert prompt.messages[1]["reasoning_content"] == "It rains."


async def test_fields_without_effect_are_accepted(client: openai.AsyncOpenAI, asked: list[Request]) -> None:
    await whole(
        client,
        max_completion_tokens=3,
        logit_bias={"5": 1},
        metadata={"a": "b"},
        store=True,
        user="u",
        service_tier="auto",
        safety_identifier="s",
        prompt_cache_key="k",
    )
    assert (asked[0].sampling.max_tokens, asked[0].sampling.logit_bias) == (3, {5: 1})


@pytest.mark.parametrize("stream", [False, True])
async def test_invalid_tools_are_a_400_before_any_load(
    client: openai.AsyncOpenAI, registry: FakeRegistry, stream: bool
) -> None:
    wrong: Any = [{"type": "function", "function": {"name": "two words"}}]
    with pytest.raises(openai.BadRequestError) as caught:
        await whole(client, tools=wrong, stream=stream)
    assert caught.value.param == "tools[0].function.name"
    assert registry.ensured == []


async def test_the_official_client_without_async_reads_calls(gateway: RunningGateway, asked: list[Request]) -> None:
    def talk() -> tuple[Any, list[Any]]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0) as client:
            reply = client.chat.completions.create(model=KEY, messages=HELLO, tools=[TOOL])  # type: ignore[arg-type]
            chunks = client.chat.completions.create(model=KEY, messages=HELLO, tools=[TOOL], stream=True)  # type: ignore[arg-type]
            return reply, list(chunks)

    reply, chunks = await asyncio.wait_for(asyncio.to_thread(talk), PATIENCE)
    assert called(reply.choices[0].message) == [(call["name"], call["arguments"]) for call in CALLS]
    arguments = ["", ""]
    for chunk in chunks:
        for piece in chunk.choices[0].delta.tool_calls or []:
            arguments[piece.index] += piece.function.arguments or ""
    assert arguments == [call["arguments"] for call in CALLS]


@tool
def weather(place: str) -> str:
    """Of now."""
    return f"rain in {place}"


async def test_langchain_calls_a_tool_and_returns_its_result(
    gateway: RunningGateway, registry: FakeRegistry, asked: list[Request]
) -> None:
    async with gateway.client() as http:
        chat = ChatOpenAI(
            model=KEY,
            base_url=f"{gateway.url}/v1",
            api_key=SecretStr("none"),
            timeout=PATIENCE,
            max_retries=0,
            http_async_client=http,
        )
        bound = chat.bind_tools([weather], tool_choice="any")
        reply = await bound.ainvoke("How is Oslo?")
        assert [(call["name"], call["args"]) for call in reply.tool_calls] == [
            ("weather", json.loads(call["arguments"])) for call in CALLS
        ]
        joined: Any = None
        async for chunk in bound.astream("How is Oslo?"):
            joined = chunk if joined is None else joined + chunk
        assert [call["args"] for call in joined.tool_calls] == [call["args"] for call in reply.tool_calls]
        tools = prompt_of(asked[0]).tools
        assert tools is not None
        assert tools.choice is ToolChoice.REQUIRED

        registry.script.update({"text": "It rains.", "tool_calls": []})
        results: list[ToolMessage] = [await weather.ainvoke(call) for call in reply.tool_calls]
        assert isinstance(reply, AIMessage)
        last = await chat.bind_tools([weather]).ainvoke([("user", "How is Oslo?"), reply, *results])
    assert last.content == "It rains."
    assert [message["content"] for message in prompt_of(asked[2]).messages[2:]] == [
        "rain in Oslo",
        "rain in Bergen in Norway",
    ]
