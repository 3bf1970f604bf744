"""Tool calls of the real model, whose chat template does not support tools."""

import json
from typing import Any

import jsonschema
import orjson
import pytest

from atelier.launch import LaunchSpec
from atelier.submission import OutputFormat, Tool, ToolChoice, Tools, set_output_format, set_tools
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit"],
}
CLOCK = {"type": "object", "properties": {"zone": {"type": "string", "maxLength": 20}}, "required": ["zone"]}
TOOLS = [Tool("get_weather", "The weather of a city.", WEATHER), Tool("get_time", "The time of a zone.", CLOCK)]
SCHEMAS = {tool.name: tool.parameters for tool in TOOLS}
FORMATS = ("auto", "hermes", "pythonic", "qwen-coder", "glm", "mistral-args", "deepseek-r1", "kimi-k2")


async def complete(
    client: WorkerClient,
    tools: Tools,
    format: str | OutputFormat = "auto",
    messages: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> tuple[str, list[tuple[str, str]], pb.Event]:
    """The text, the calls' names and arguments, and the end."""
    messages = messages or [{"role": "user", "content": "How is the weather in Paris, in celsius?"}]
    chat = pb.Chat(messages_json=orjson.dumps(messages))
    set_tools(chat, tools)
    set_output_format(chat, OutputFormat(format) if isinstance(format, str) else format)
    sampling = {"max_tokens": 300, "seed": 7, **fields.pop("sampling", {})}
    await client.submit(1, chat=chat, sampling=sampling, **fields)
    text, calls = "", []
    while True:
        event = await client.next(1)
        if event.HasField("finished") or event.HasField("failed"):
            return text, [(name, arguments) for name, arguments in calls], event
        text += event.delta.text
        for piece in event.delta.tool_calls:
            if piece.name:
                assert piece.id
                calls.append((piece.name, ""))
            calls[piece.index] = (calls[piece.index][0], calls[piece.index][1] + piece.arguments)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_required_calls_parse_and_validate(client: WorkerClient, format: str, temperature: float) -> None:
    tools = Tools(TOOLS, ToolChoice.REQUIRED, one_at_a_time=True)
    text, calls, end = await complete(client, tools, format, sampling={"temperature": temperature})
    assert end.finished.reason == pb.TOOL_CALLS, end
    assert text == ""
    ((name, arguments),) = calls
    jsonschema.validate(json.loads(arguments), SCHEMAS[name])


async def test_a_named_tool_is_called(client: WorkerClient) -> None:
    tools = Tools(TOOLS, ToolChoice.NAMED, "get_time", one_at_a_time=True)
    _, calls, end = await complete(client, tools)
    assert end.finished.reason == pb.TOOL_CALLS
    assert [name for name, _ in calls] == ["get_time"]
    jsonschema.validate(json.loads(calls[0][1]), CLOCK)


async def test_the_result_of_a_call_is_part_of_the_prompt(client: WorkerClient) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "user", "content": "How is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "Sunny, 24 degrees."},
    ]
    text, _, end = await complete(client, Tools(TOOLS), messages=messages, sampling={"temperature": 0.0})
    assert end.HasField("finished")
    assert "24" in text or "unny" in text


async def test_required_calls_cannot_be_combined_with_a_response_format(client: WorkerClient) -> None:
    _, _, end = await complete(client, Tools(TOOLS, ToolChoice.REQUIRED), json_object=True)
    assert (end.failed.error.param, end.failed.error.code) == ("tool_choice", "invalid_value")


async def test_a_strict_tool_with_unenforced_keywords_is_rejected(client: WorkerClient) -> None:
    unique = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    for strict in (True, False):
        tools = Tools([Tool("f", parameters=unique, strict=strict)], ToolChoice.REQUIRED, one_at_a_time=True)
        _, calls, end = await complete(client, tools, sampling={"max_tokens": 60})
        if strict:
            assert end.failed.error.param == "tools"
            assert "uniqueItems" in end.failed.error.message
        else:
            assert calls


async def test_strict_tools_do_not_constrain_text(client: WorkerClient) -> None:
    strict = Tools([Tool("get_time", "The time.", CLOCK, strict=True)])
    messages = [{"role": "user", "content": "Say hello to the world."}]
    for format in ("auto", "hermes"):
        text, calls, end = await complete(client, strict, format, messages, sampling={"temperature": 0.0})
        assert end.HasField("finished")
        assert text or calls
        for _, arguments in calls:
            jsonschema.validate(json.loads(arguments), CLOCK)


async def test_marks_that_are_control_tokens_are_parsed_and_not_shown(client: WorkerClient, spec: LaunchSpec) -> None:
    """Biases force both marks: the first may begin the completion, the second end the part that it began."""
    start, end_mark = "<file_sep>", "<repo_name>"
    ids = []
    for mark in (start, end_mark):
        request = pb.TokenizeRequest(instance_id=spec.instance_id, text=mark, add_special=False)
        (token,) = (await client.stub.Tokenize(request, metadata=client.metadata)).ids
        ids.append(token)
    marks = OutputFormat("hermes", start, end_mark)
    tools = Tools(TOOLS, ToolChoice.REQUIRED, one_at_a_time=True)
    biases = {ids[0]: 100.0, ids[1]: 50.0}
    text, calls, end = await complete(client, tools, marks, sampling={"logit_bias": biases})
    assert end.finished.reason == pb.TOOL_CALLS
    assert text == ""
    jsonschema.validate(json.loads(calls[0][1]), SCHEMAS[calls[0][0]])
    assert end.finished.statistics.predicted_tokens > 2

    del biases[ids[1]]
    text, calls, end = await complete(client, tools, marks, sampling={"logit_bias": biases, "max_tokens": 8})
    assert (text, calls) == ("", [])
    assert end.finished.statistics.reasoning_tokens > 0
