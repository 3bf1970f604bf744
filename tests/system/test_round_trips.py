"""Tools, their results and the answers to them, and answers in a form: official clients with the real model."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import lmstudio
import ollama
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
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
RESULT = "Rain, 8 degrees."


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")

    place: Literal["Oslo", "Bergen"]
    degrees: Literal[7, 8, 9]


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


def test_a_responses_call_is_answered_by_the_response_after_it(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}]
    fields: Any = {"model": MODEL, "tools": tools, "max_output_tokens": 60, "parallel_tool_calls": False}
    first = client.responses.create(**fields, input=ASKED, tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments)["place"] in ("Oslo", "Bergen")
    with client.responses.stream(**fields, input=ASKED, tool_choice="required") as stream:
        streamed = stream.get_final_response()
    assert [item.type for item in streamed.output] == [item.type for item in first.output]
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


def test_ollamas_client_gives_a_result_back(server: Server) -> None:
    """Ollama's chats have no way to say that a tool must be called, so the call is given."""
    function = {"name": "weather", "description": "Of now.", "parameters": PARAMETERS}
    messages: list[Any] = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"place": "Bergen"}}}]},
        {"role": "tool", "content": RESULT, "tool_name": "weather"},
    ]
    tools: Any = [{"type": "function", "function": function}]
    options = {"seed": 1, "num_predict": 24}
    with ollama.Client(host=server.url, timeout=60) as client:
        whole = client.chat(MODEL, messages, tools=tools, options=options)
        parts = list(client.chat(MODEL, messages, tools=tools, options=options, stream=True))
    assert whole.message.content or whole.message.tool_calls
    assert "".join(part.message.content or "" for part in parts) == (whole.message.content or "")
    assert parts[-1].eval_count == whole.eval_count


def test_lm_studios_act_comes_to_an_end(server: Server) -> None:
    """Its client cannot say that a tool must be called, and the model may not call one of itself."""
    rounds: list[Any] = []

    def weather(place: str) -> str:
        """The weather of now."""
        return RESULT

    with lmstudio.Client(server.url.removeprefix("http://")) as client:
        done = client.llm.model(MODEL).act(
            ASKED,
            [weather],
            max_prediction_rounds=2,
            config={"maxTokens": 40, "temperature": 0.0},
            on_prediction_completed=rounds.append,
            handle_invalid_tool_request=lambda problem, request: "There is no such tool.",
        )
    assert 1 <= done.rounds == len(rounds) <= 2
    assert rounds[-1].stats.predicted_tokens_count > 0


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
