"""Tools, their results and the answers to them, and answers in a form: official clients with the real model."""

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

from tests.support.server_process import MODEL, Server

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

# What a chat begins with where the API cannot require a call: a model as small as this one goes on in the same way.
QUESTION = "How is the weather in {}?"
BEFORE = [
    ("Oslo", "Snow, 2 degrees.", "In Oslo it is 2 degrees."),
    ("Rome", "Sun, 25 degrees.", "In Rome it is 25 degrees."),
    ("Paris", "Fog, 12 degrees.", "In Paris it is 12 degrees."),
]


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")

    place: Literal["Oslo", "Bergen"]
    degrees: Literal[7, 8, 9]


def temperature(place: str) -> str:
    """The weather of now."""
    return RESULT if place == "Bergen" else "Unknown."


@tool
def weather(place: Literal["Oslo", "Bergen"]) -> str:
    """The weather of now."""
    return f"{RESULT} That is {place}."


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


def test_openais_client_has_a_chat_parsed(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": ASKED}]
    reply = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Weather, max_tokens=60)
    assert isinstance(reply.choices[0].message.parsed, Weather)


def test_openais_client_has_a_response_parsed(client: openai.OpenAI) -> None:
    reply = client.responses.parse(model=MODEL, input=ASKED, text_format=Weather, max_output_tokens=60)
    assert isinstance(reply.output_parsed, Weather)


@pytest.mark.parametrize("base", ["/v1", "/api/v0"])
def test_a_stream_of_a_call_agrees_with_the_whole_one(server: Server, client: openai.OpenAI, base: str) -> None:
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


def test_a_responses_call_is_answered_by_the_response_after_it(client: openai.OpenAI) -> None:
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
    """Its chats have no way to say that a tool must be called: the model does as it did before."""
    messages: list[Any] = []
    for place, found, answer in BEFORE:
        call = {"function": {"name": "temperature", "arguments": {"place": place}}}
        messages += [
            {"role": "user", "content": QUESTION.format(place)},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": found, "tool_name": "temperature"},
            {"role": "assistant", "content": answer},
        ]
    messages.append({"role": "user", "content": QUESTION.format("Bergen")})
    wanted: Any = {"model": MODEL, "tools": [temperature], "options": {"temperature": 0, "num_predict": 40}}
    with ollama.Client(host=server.url, timeout=60) as client:
        first = client.chat(**wanted, messages=messages).message
        told = [part.message for part in client.chat(**wanted, messages=messages, stream=True)]
        (call,) = first.tool_calls or []
        assert [each for part in told for each in part.tool_calls or []] == [call]
        assert (call.function.name, call.function.arguments) == ("temperature", {"place": "Bergen"})
        result = temperature(**call.function.arguments)
        messages += [first, {"role": "tool", "content": result, "tool_name": "temperature"}]
        whole = client.chat(**wanted, messages=messages)
        parts = list(client.chat(**wanted, messages=messages, stream=True))
    assert "8 degrees" in (whole.message.content or "")
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert parts[-1].eval_count == whole.eval_count


def test_lm_studios_client_makes_the_round_trip(server: Server) -> None:
    """Its act cannot say that a tool must be called either."""
    history = lmstudio.Chat()
    for number, (place, found, answer) in enumerate(BEFORE):
        history.add_user_message(QUESTION.format(place))
        call: Any = {"type": "function", "id": str(number), "name": "temperature", "arguments": {"place": place}}
        history.add_assistant_response("", [{"type": "toolCallRequest", "toolCallRequest": call}])
        history.add_tool_result({"type": "toolCallResult", "toolCallId": str(number), "content": found})
        history.add_assistant_response(answer)
    history.add_user_message(QUESTION.format("Bergen"))
    said: list[Any] = []
    with lmstudio.Client(server.url.removeprefix("http://")) as client:
        config: Any = {"maxTokens": 40, "temperature": 0.0}
        done = client.llm.model(MODEL).act(history, [temperature], config=config, on_message=said.append)
    assert done.rounds == 2
    calling, result, answered = said
    _, asked = calling.content
    assert (asked.tool_call_request.name, asked.tool_call_request.arguments) == ("temperature", {"place": "Bergen"})
    assert "8 degrees" in result.content[0].content
    assert "8 degrees" in answered.content[0].text


async def test_langchain_reads_whole_and_streamed_answers_alike(chat: ChatOpenAI) -> None:
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
def test_langchain_has_an_answer_in_a_form(
    chat: ChatOpenAI, method: Literal["json_schema", "function_calling"]
) -> None:
    assert isinstance(chat.with_structured_output(Weather, method=method).invoke(ASKED), Weather)


def test_langchain_has_texts_as_vectors(server: Server) -> None:
    """As texts: by default it sends the tokens of a tokenizer of OpenAI's, which it has to download first."""
    with httpx.Client(timeout=60) as http:
        at: Any = {"base_url": f"{server.url}/v1", "api_key": "none", "http_client": http}
        embeddings = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False, max_retries=0, **at)
        documents = embeddings.embed_documents(["The sea is warm.", "The ocean is warm.", "A tax form."])
        asked = embeddings.embed_query("The sea is warm.")
    same, like, other = (sum(a * b for a, b in zip(asked, each, strict=True)) for each in documents)
    assert same == pytest.approx(1, abs=1e-3)
    assert same > like > other
