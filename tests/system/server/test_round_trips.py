"""Tool calls, their results and the final answers, and structured answers: official clients with the real model."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import lmstudio
import ollama
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict, SecretStr

from tests.support.command.server_process import MODEL, Server

pytestmark = pytest.mark.system

ASKED = "How is the weather in Bergen?"
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string", "enum": ["Oslo", "Bergen"]}},
    "required": ["place"],
    "additionalProperties": False,
}
FREE: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 40}},
    "required": ["text"],
    "additionalProperties": False,
}
RESULT = "Rain, 8 degrees."
BEFORE = {"Oslo": "Snow, 2 degrees.", "Lima": "Sun, 21 degrees.", "Cairo": "Dust, 33 degrees."}


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")

    place: Literal["Oslo", "Bergen"]
    degrees: Literal[7, 8, 9]


@tool
def weather(place: Literal["Oslo", "Bergen"]) -> str:
    """The weather of now."""
    return f"{RESULT} That is {place}."


@pytest.fixture(scope="module", autouse=True)
def reproducible(server: Server) -> None:
    """Loaded so that a repeated call gives the same text."""
    loaded = server.atelier("load", MODEL, "--reproducible")
    assert loaded.returncode == 0, loaded.stderr


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=60, max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def chat(server: Server) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=f"{server.url}/v1",
        api_key=SecretStr("none"),
        seed=1,
        timeout=60,
        max_retries=0,
        max_completion_tokens=60,
        stream_usage=True,
    )


def test_openais_client_parses_a_chat(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": ASKED}]
    reply = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Weather, max_tokens=60)
    assert isinstance(reply.choices[0].message.parsed, Weather)


def test_openais_client_parses_a_response(client: openai.OpenAI) -> None:
    reply = client.responses.parse(model=MODEL, input=ASKED, text_format=Weather, max_output_tokens=60)
    assert isinstance(reply.output_parsed, Weather)


@pytest.mark.parametrize("base", ["/v1", "/api/v0"])
def test_a_streamed_call_equals_one_that_is_not_streamed(server: Server, client: openai.OpenAI, base: str) -> None:
    function = {"name": "note", "description": "Keep a note.", "parameters": FREE}
    asked: Any = {
        "model": MODEL,
        "messages": [{"role": "user", "content": ASKED}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 80,
        "temperature": 1.0,
        "seed": 1,
    }
    dialect = client.with_options(base_url=f"{server.url}{base}")
    whole = dialect.chat.completions.create(**asked)
    with dialect.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        streamed = stream.get_final_completion()
    ((one,), (other,)) = whole.choices, streamed.choices
    assert (one.finish_reason, other.finish_reason) == ("tool_calls", "tool_calls")
    (call,), (again,) = one.message.tool_calls or [], other.message.tool_calls or []
    assert call.type == "function"
    assert set(json.loads(call.function.arguments)) == {"text"}
    assert (again.function.name, again.function.arguments) == (call.function.name, call.function.arguments)
    assert streamed.usage
    assert whole.usage
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens


def test_a_responses_call_is_answered_in_the_next_response(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}]
    fields: Any = {"model": MODEL, "tools": tools, "max_output_tokens": 60, "parallel_tool_calls": False}
    fields["extra_body"] = {"seed": 1}
    first = client.responses.create(**fields, input=ASKED, tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments)["place"] in ("Oslo", "Bergen")
    with client.responses.stream(**fields, input=ASKED, tool_choice="required") as stream:
        streamed = stream.get_final_response()
    (again,) = [item for item in streamed.output if item.type == "function_call"]
    assert (again.name, again.arguments) == (call.name, call.arguments)
    assert streamed.usage
    assert first.usage
    assert streamed.usage.output_tokens == first.usage.output_tokens
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": RESULT}]
    answer = client.responses.create(
        **{**fields, "max_output_tokens": 24}, input=result, previous_response_id=first.id, tool_choice="none"
    )
    assert answer.output_text


def test_anthropics_client_makes_the_round_trip(server: Server) -> None:
    tools: Any = [{"name": "weather", "description": "Of now.", "input_schema": PARAMETERS}]
    messages: Any = [{"role": "user", "content": ASKED}]
    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    with anthropic.Anthropic(base_url=server.url, api_key="none", timeout=60, max_retries=0) as client:
        wanted: Any = {"model": MODEL, "tools": tools, "tool_choice": choice, "extra_body": {"seed": 1}}
        first = client.messages.create(**wanted, messages=messages, max_tokens=60)
        with client.messages.stream(**wanted, messages=messages, max_tokens=60) as stream:
            streamed = stream.get_final_message()
        (call,) = [block for block in first.content if block.type == "tool_use"]
        (again,) = [block for block in streamed.content if block.type == "tool_use"]
        assert (first.stop_reason, streamed.stop_reason) == ("tool_use", "tool_use")
        assert call.input == again.input
        assert set(call.input) == {"place"}
        messages += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT}]},
        ]
        wanted["tool_choice"] = {"type": "none"}
        answer = client.messages.create(**wanted, messages=messages, max_tokens=24)
    assert [block.type for block in answer.content] == ["text"]


def test_ollamas_client_makes_the_round_trip(server: Server) -> None:
    """Ollama's chats cannot require a tool call: the model imitates an earlier one."""
    tools: Any = [
        {"type": "function", "function": {"name": "weather", "description": "Of now.", "parameters": PARAMETERS}}
    ]
    messages: list[Any] = []
    for place, found in BEFORE.items():
        messages += [
            {"role": "user", "content": ASKED.replace("Bergen", place)},
            {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"place": place}}}]},
            {"role": "tool", "content": found, "tool_name": "weather"},
            {"role": "assistant", "content": f"The weather in {place}: {found}"},
        ]
    messages.append({"role": "user", "content": ASKED})
    options = {"temperature": 0, "num_predict": 60}
    with ollama.Client(host=server.url, timeout=60) as client:
        whole = client.chat(MODEL, messages, tools=tools, options=options).message
        parts = list(client.chat(MODEL, messages, tools=tools, options=options, stream=True))
        (call,) = whole.tool_calls or []
        assert (call.function.name, call.function.arguments) == ("weather", {"place": "Bergen"})
        assert [each for part in parts for each in part.message.tool_calls or []] == [call]
        messages += [whole, {"role": "tool", "content": RESULT, "tool_name": "weather"}]
        answer = client.chat(MODEL, messages, tools=tools, options=options).message
        parts = list(client.chat(MODEL, messages, tools=tools, options=options, stream=True))
    assert RESULT in (answer.content or "")
    assert "".join(part.message.content or "" for part in parts) == answer.content


def test_lm_studios_act_makes_the_round_trip(server: Server) -> None:
    """Its client cannot require a tool call: the model imitates an earlier one."""
    asked: list[str] = []
    said: list[Any] = []

    def weather(place: str) -> str:
        """Of now."""
        asked.append(place)
        return RESULT

    chat = lmstudio.Chat()
    for number, (place, found) in enumerate(BEFORE.items()):
        call = {"type": "function", "name": "weather", "id": str(number), "arguments": {"place": place}}
        chat.add_user_message(ASKED.replace("Bergen", place))
        chat.add_assistant_response("", [{"type": "toolCallRequest", "toolCallRequest": call}])
        chat.add_tool_result({"toolCallId": str(number), "content": found})
        chat.add_assistant_response(f"The weather in {place}: {found}")
    chat.add_user_message(ASKED)
    with lmstudio.Client(server.url.removeprefix("http://")) as client:
        done = client.llm.model(MODEL).act(
            chat, [weather], config={"maxTokens": 60, "temperature": 0.0}, on_message=said.append
        )
    assert asked == ["Bergen"]
    assert done.rounds == 2
    assert [message.role for message in said] == ["assistant", "tool", "assistant"]
    assert RESULT in said[-1].content[0].text


async def test_langchain_reads_streamed_and_whole_answers_alike(chat: ChatOpenAI) -> None:
    whole, joined = chat.invoke("Name a colour."), None
    for chunk in chat.stream("Name a colour."):
        joined = chunk if joined is None else joined + chunk
    assert isinstance(whole, AIMessage)
    assert isinstance(joined, AIMessage)
    assert whole.content == joined.content == (await chat.ainvoke("Name a colour.")).content
    assert whole.usage_metadata is not None
    assert joined.usage_metadata is not None
    assert joined.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"] > 0


def test_langchain_makes_the_round_trip(chat: ChatOpenAI) -> None:
    call = chat.bind_tools([weather], tool_choice="weather", parallel_tool_calls=False).invoke(ASKED)
    assert isinstance(call, AIMessage)
    result = weather.invoke(call.tool_calls[0])
    assert result.content.startswith(RESULT)
    answer = chat.bind_tools([weather], tool_choice="none").invoke([HumanMessage(ASKED), call, result])
    assert answer.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_a_structured_answer(
    chat: ChatOpenAI, method: Literal["json_schema", "function_calling"]
) -> None:
    assert isinstance(chat.with_structured_output(Weather, method=method).invoke(ASKED), Weather)


async def test_langchain_finds_the_text_most_similar_to_the_question(server: Server) -> None:
    """Sent as text, because the token ids that it would send belong to OpenAI's models."""
    texts = ["The weather in Bergen is wet.", "Integers are countable."]
    with httpx.Client(timeout=60) as blocking:
        async with httpx.AsyncClient(timeout=60) as waiting:
            embeddings = OpenAIEmbeddings(
                model=MODEL,
                base_url=f"{server.url}/v1",
                api_key=SecretStr("none"),
                check_embedding_ctx_length=False,
                max_retries=0,
                http_client=blocking,
                http_async_client=waiting,
            )
            vectors = embeddings.embed_documents(texts)
            asked = embeddings.embed_query("The weather in Oslo is wet.")
            assert await embeddings.aembed_documents(texts) == vectors
    likeness = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
    assert likeness[0] > likeness[1]
