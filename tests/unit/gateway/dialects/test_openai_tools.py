"""OpenAI's tools, their choice, and earlier calls to the core's."""

import json
from typing import Any

import pytest

from atelier.errors import InvalidRequest
from atelier.generation_types import Finished, Statistics, StopReason, ToolCallPiece
from atelier.submission import JsonSchema, Tool, ToolChoice, Tools
from gateway.core.call import Call, Chat
from gateway.core.events import Completion, ToolCall
from gateway.dialects.body import parse
from gateway.dialects.openai.openai_calls import chat_call
from gateway.dialects.openai.openai_replies import chat_choices, tool_call_delta
from gateway.dialects.openai.openai_requests import ChatBody

HELLO = [{"role": "user", "content": "Hello"}]
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
WEATHER = {"name": "weather", "description": "What the weather is.", "parameters": PLACE}
TIME = {"name": "time"}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": TIME}]
CALLABLE = [Tool("weather", "What the weather is.", PLACE), Tool("time")]


def chat(**fields: Any) -> Call:
    return chat_call(parse(json.dumps({"model": "m", "messages": HELLO, **fields}).encode(), ChatBody))


def messages_of(call: Call) -> list[dict[str, Any]]:
    (prompt,) = call.prompts
    assert isinstance(prompt, Chat)
    return prompt.messages


def param_of(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.status == 400
    assert caught.value.message.startswith(f"{caught.value.param}: ")
    return caught.value.param


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def only(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, Tools(CALLABLE)),
        ("auto", Tools(CALLABLE)),
        ("none", None),
        ("required", Tools(CALLABLE, ToolChoice.REQUIRED)),
        (named("time"), Tools(CALLABLE, ToolChoice.NAMED, "time")),
        (only("auto", "time"), Tools(CALLABLE[1:])),
        (only("required", "time", "weather"), Tools(CALLABLE, ToolChoice.REQUIRED)),
    ],
)
def test_every_form_of_tool_choice_is_accepted(choice: Any, tools: Tools | None) -> None:
    assert chat(tools=TOOLS, tool_choice=choice).tools == tools


def test_parallel_tool_calls_and_strict_are_passed_on() -> None:
    strict = {"type": "function", "function": {**TIME, "strict": True}}
    asked = chat(tools=[strict], parallel_tool_calls=False).tools
    assert asked == Tools([Tool("time", strict=True)], one_at_a_time=True)
    assert chat(tools=[strict], parallel_tool_calls=True).tools == Tools([Tool("time", strict=True)])


@pytest.mark.parametrize("parameters", [None, {}])
def test_a_function_without_parameters_takes_an_empty_object(parameters: Any) -> None:
    asked = chat(tools=[{"type": "function", "function": {"name": "time", "parameters": parameters}}]).tools
    assert asked is not None
    assert asked.tools[0].parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [], "tool_choice": "auto"}, {"tool_choice": "none"}])
def test_an_empty_list_of_tools_means_no_tools(fields: dict[str, Any]) -> None:
    assert chat(**fields, parallel_tool_calls=True).tools is None


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, Tools(CALLABLE, one_at_a_time=True)),
        ("auto", Tools(CALLABLE, one_at_a_time=True)),
        ("none", None),
        ({"name": "time"}, Tools(CALLABLE, ToolChoice.NAMED, "time", one_at_a_time=True)),
    ],
)
def test_deprecated_functions_become_tools_with_at_most_one_call(choice: Any, tools: Tools | None) -> None:
    assert chat(functions=[WEATHER, TIME], function_call=choice).tools == tools


def function(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", **fields}}]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("tools", {"tools": {}}),
        ("tools", {"tools": function() * 257}),
        ("tools[0]", {"tools": ["x"]}),
        ("tools[0].type", {"tools": [{"function": TIME}]}),
        ("tools[0].type", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
        ("tools[0].function", {"tools": [{"type": "function"}]}),
        ("tools[1].function.name", {"tools": [TOOLS[0], {"type": "function", "function": {}}]}),
        ("tools[0].function.name", {"tools": function(name="")}),
        ("tools[0].function.name", {"tools": function(name="two words")}),
        ("tools[0].function.name", {"tools": function(name="x" * 129)}),
        ("tools[0].function.name", {"tools": function(name=3)}),
        ("tools[0].function.description", {"tools": function(description=3)}),
        ("tools[0].function.parameters", {"tools": function(parameters="x")}),
        ("tools[0].function.parameters.type", {"tools": function(parameters={"type": "string"})}),
        ("tools[0].function.strict", {"tools": function(strict="yes")}),
        ("tools[2].function.name", {"tools": [*TOOLS, TOOLS[0]]}),
        ("tool_choice", {"tools": TOOLS, "tool_choice": "any"}),
        ("tool_choice", {"tools": TOOLS, "tool_choice": 3}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice.type", {"tools": TOOLS, "tool_choice": {"type": "x", "function": {"name": "time"}}}),
        ("tool_choice.function", {"tools": TOOLS, "tool_choice": {"type": "function"}}),
        ("tool_choice.function.name", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {}}}),
        ("tool_choice.function.name", {"tools": TOOLS, "tool_choice": named("tide")}),
        ("tool_choice.function.name", {"tool_choice": named("time")}),
        ("tool_choice.allowed_tools", {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}),
        ("tool_choice.allowed_tools.mode", {"tools": TOOLS, "tool_choice": only("none", "time")}),
        ("tool_choice.allowed_tools.tools", {"tools": TOOLS, "tool_choice": only("auto")}),
        (
            "tool_choice.allowed_tools.tools[1].function.name",
            {"tools": TOOLS, "tool_choice": only("auto", "time", "tide")},
        ),
        ("parallel_tool_calls", {"tools": TOOLS, "parallel_tool_calls": "no"}),
        ("functions", {"functions": {}}),
        ("functions", {"tools": TOOLS, "functions": [TIME]}),
        ("functions[0].name", {"functions": [{}]}),
        ("functions[1].name", {"functions": [TIME, TIME]}),
        ("function_call", {"functions": [TIME], "function_call": "required"}),
        ("function_call.name", {"functions": [TIME], "function_call": {"name": "tide"}}),
        ("reasoning_effort", {"reasoning_effort": "huge"}),
        ("reasoning_effort", {"reasoning_effort": 3}),
    ],
)
def test_invalid_tools_are_rejected_by_field_path(param: str, fields: dict[str, Any]) -> None:
    assert param_of(**fields) == param


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}}


def test_earlier_calls_and_their_results_stay_in_the_chat() -> None:
    history = [
        *HELLO,
        {"role": "assistant", "reasoning_content": "I look it up.", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "tool_calls": []},
    ]
    assert messages_of(chat(messages=history)) == [
        *HELLO,
        {"role": "assistant", "content": "", "reasoning_content": "I look it up.", "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "assistant", "content": "No."},
    ]


def test_earlier_function_calls_become_tool_calls() -> None:
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "function_call": {"name": "time", "arguments": "{}"}},
        {"role": "function", "name": "time", "content": "noon"},
    ]
    call = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    assert messages_of(chat(messages=history))[1:] == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "time", "content": "noon", "tool_call_id": "call_1"},
    ]


def call_with(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "tool_calls": [{**CALL, **fields}]}]


@pytest.mark.parametrize(
    ("param", "messages"),
    [
        ("messages[0].tool_calls", [{"role": "assistant", "tool_calls": {}}]),
        ("messages[0].tool_calls[0]", [{"role": "assistant", "tool_calls": ["x"]}]),
        ("messages[0].tool_calls[0].id", call_with(id=3)),
        ("messages[0].tool_calls[0].type", call_with(type="custom")),
        ("messages[0].tool_calls[0].function", call_with(function=None)),
        ("messages[0].tool_calls[0].function.name", call_with(function={"arguments": "{}"})),
        ("messages[0].tool_calls[0].function.name", call_with(function={"name": "", "arguments": "{}"})),
        ("messages[0].tool_calls[0].function.arguments", call_with(function={"name": "f"})),
        ("messages[0].tool_calls[0].function.arguments", call_with(function={"name": "f", "arguments": {}})),
        ("messages[0].function_call.arguments", [{"role": "assistant", "function_call": {"name": "f"}}]),
        ("messages[0].reasoning_content", [{"role": "assistant", "reasoning_content": 3}]),
        ("messages[0].content", [{"role": "tool", "tool_call_id": "c1"}]),
        ("messages[0].tool_call_id", [{"role": "tool", "tool_call_id": 3, "content": "x"}]),
        ("messages[0].content[0].refusal", [{"role": "assistant", "content": [{"type": "refusal"}]}]),
    ],
)
def test_an_invalid_message_is_rejected_by_field_path(param: str, messages: Any) -> None:
    assert param_of(messages=messages) == param


def test_reasoning_effort_reaches_the_template_as_both_of_its_arguments() -> None:
    assert chat().template_arguments == {}
    assert chat(reasoning_effort="low").template_arguments == {"reasoning_effort": "low", "enable_thinking": True}
    assert chat(reasoning_effort="max").template_arguments == {"reasoning_effort": "max", "enable_thinking": True}
    assert chat(reasoning_effort="none").template_arguments == {"reasoning_effort": "none", "enable_thinking": False}


def test_an_explicit_template_argument_overrides_the_reasoning_effort() -> None:
    given = {"enable_thinking": False, "documents": ["a", 1, None, 0.5]}
    call = chat(reasoning_effort="high", chat_template_kwargs=given)
    assert call.template_arguments == {"reasoning_effort": "high", **given}


@pytest.mark.parametrize(
    ("param", "given"),
    [
        ("chat_template_kwargs", []),
        ("chat_template_kwargs", {f"a{n}": 1 for n in range(65)}),
        ("chat_template_kwargs", {"a": "x" * 16_384}),
        ("chat_template_kwargs.messages", {"messages": []}),
        ("chat_template_kwargs.tools", {"tools": None}),
        ("chat_template_kwargs.add_generation_prompt", {"add_generation_prompt": False}),
        ("chat_template_kwargs.raise_exception", {"raise_exception": "x"}),
        ("chat_template_kwargs.two words", {"two words": 1}),
        ("chat_template_kwargs.", {"": 1}),
        ("chat_template_kwargs.a", {"a": {}}),
        ("chat_template_kwargs.a", {"a": [[]]}),
        ("chat_template_kwargs.a", {"a": 2**63}),
    ],
)
def test_invalid_template_arguments_are_rejected(param: str, given: Any) -> None:
    assert param_of(chat_template_kwargs=given) == param


def completed(*calls: ToolCall, text: str = "") -> list[Completion]:
    return [Completion(text, Finished(0, StopReason.TOOL_CALLS, None, Statistics()), tool_calls=calls)]


def test_a_tool_call_without_text_has_null_content() -> None:
    (choice,) = chat_choices(completed(ToolCall("c1", "time", "{}")))
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    assert choice["finish_reason"] == "tool_calls"


def test_a_request_with_functions_is_answered_with_a_function_call() -> None:
    (choice,) = chat_choices(completed(ToolCall("c1", "time", "{}"), text="So:"), older_calls=True)
    called = {"name": "time", "arguments": "{}"}
    assert choice["message"] == {"role": "assistant", "content": "So:", "refusal": None, "function_call": called}
    assert choice["finish_reason"] == "function_call"


def test_the_first_piece_of_a_call_has_its_id_and_name() -> None:
    first = tool_call_delta(ToolCallPiece(1, "c1", "time", "{"))
    assert first == {"index": 1, "id": "c1", "type": "function", "function": {"name": "time", "arguments": "{"}}
    assert tool_call_delta(ToolCallPiece(1, arguments="}")) == {"index": 1, "function": {"arguments": "}"}}


SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}


def test_a_format_is_for_replies_that_have_text() -> None:
    assert chat(tools=TOOLS, response_format=SCHEMA).constraint == JsonSchema('{"type":"object"}', None)
    assert chat(tools=TOOLS, tool_choice="none", response_format=SCHEMA).constraint is not None
    for choice in ("required", named("time")):
        assert chat(tools=TOOLS, tool_choice=choice, response_format=SCHEMA).constraint is None


@pytest.mark.parametrize(("param", "text"), [("grammar", 'root ::= "a"'), ("regex", "a")])
def test_a_forced_call_cannot_be_combined_with_a_grammar(param: str, text: str) -> None:
    assert chat(tools=TOOLS, **{param: text}).constraint is not None
    assert param_of(tools=TOOLS, tool_choice="required", **{param: text}) == param
