"""Anthropic's bodies to the core's calls, and completions to Anthropic's objects."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import BY_CODE, InvalidRequest, UnsupportedField
from atelier.generation_types import Finished, Statistics, StopReason
from atelier.settings import TABLE
from atelier.submission import JsonSchema, Tool, ToolChoice, Tools
from gateway.core.call import Call, Chat, Origin
from gateway.core.call_plan import make_plan
from gateway.core.events import Completion, ToolCall
from gateway.core.images import EncodedImage, RemoteImage
from gateway.core.wire import chat_tokens_message, submit_message
from gateway.dialects.anthropic.anthropic_calls import count_call, messages_call
from gateway.dialects.anthropic.anthropic_messages import chat_messages
from gateway.dialects.anthropic.anthropic_model_list import model_page
from gateway.dialects.anthropic.anthropic_replies import content_blocks, ending, error_body, error_type, tool_input
from gateway.dialects.anthropic.anthropic_requests import SETTINGS, MessagesBody
from gateway.dialects.body import parse
from gateway.dialects.error_formats import forms_of_path
from gateway.fleet.snapshot import Model, Snapshot

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"name": "weather", "description": "Of a place", "input_schema": {"type": "object", "properties": {}}}
ASKED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"place": "Köln"}}


def read(**fields: Any) -> MessagesBody:
    return parse(json.dumps({"model": "m", "max_tokens": 5000, "messages": HELLO, **fields}).encode(), MessagesBody)


def call(**fields: Any) -> Call:
    return messages_call(read(**fields))


def messages_of(**fields: Any) -> list[dict[str, Any]]:
    body = read(**fields)
    return chat_messages(body.system, body.messages)


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        call(**fields)
    return caught.value


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def result(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **more}


def image(source: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image", "source": source}


DATA = {"type": "base64", "media_type": "image/png", "data": "aGk="}


def test_images_are_parts_of_the_users_message() -> None:
    there = {"type": "url", "url": "https://example.org/a.png"}
    assert call(messages=[user(text("Which?"), image(DATA), image(there), text("Say."))]).prompts == [
        Chat(
            [
                {
                    "role": "user",
                    "content": [text("Which?"), {"type": "image"}, {"type": "image"}, text("Say.")],
                }
            ],
            (
                EncodedImage("aGk=", "messages[0].content[1].source.data"),
                RemoteImage("https://example.org/a.png", "messages[0].content[2].source.url"),
            ),
        )
    ]


PDF = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


def test_text_documents_and_search_results_become_text() -> None:
    plain = document({"type": "text", "media_type": "text/plain", "data": "Rain."}, title="Report", context="Of today")
    parts = document({"type": "content", "content": [text("Snow."), image(DATA)]})
    found = {
        "type": "search_result",
        "title": "News",
        "source": "https://a.b",
        "content": [text("Sun."), text("Hail.")],
    }
    expected = ["Report\nOf today\nRain.\nSnow.", "News\nhttps://a.b\nSun.\nHail.\nWhich?"]
    prompt = call(messages=[user(plain, parts, found, text("Which?"))]).prompts[0]
    assert isinstance(prompt, Chat)
    assert prompt.messages == [{"role": "user", "content": [text(expected[0]), {"type": "image"}, text(expected[1])]}]
    assert [each.path for each in prompt.images] == ["messages[0].content[1].source.content[1].source.data"]
    by_tool = [*HELLO, assistant(ASKED), user(result([found, document({"type": "content", "content": "Fog."})]))]
    assert messages_of(messages=by_tool)[-1]["content"] == "News\nhttps://a.b\nSun.\nHail.\nFog."


def test_a_format_is_accepted_under_its_older_name() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    assert call(output_format=form).constraint == call(output_config={"format": form}).constraint is not None
    newer = call(output_format={**form, "schema": {"type": "array"}}, output_config={"format": form})
    assert newer.constraint == call(output_format=form).constraint


@pytest.mark.parametrize(
    ("content", "is_error", "expected"),
    [
        ([image(DATA)], False, [{"type": "image"}]),
        ([text("seen:"), image(DATA)], True, [text("Error: seen:"), {"type": "image"}]),
        ([image(DATA)], True, [text("Error"), {"type": "image"}]),
        ([text("gone")], True, "Error: gone"),
        ("", True, "Error"),
    ],
)
def test_a_tools_result_may_have_images(content: Any, is_error: bool, expected: Any) -> None:
    prompt = call(messages=[*HELLO, assistant(ASKED), user(result(content, is_error=is_error))]).prompts[0]
    assert isinstance(prompt, Chat)
    assert prompt.messages[-1]["content"] == expected
    assert [each.path for each in prompt.images] == [
        f"messages[2].content[0].content[{i}].source.data" for i, block in enumerate(content) if block == image(DATA)
    ]


def test_the_system_prompt_is_a_string_or_blocks() -> None:
    blocks = [{**text("Be brief."), "cache_control": {"type": "ephemeral"}}, text("Be kind.")]
    for system, expected in (("Be brief.", "Be brief."), (blocks, "Be brief.\nBe kind.")):
        assert messages_of(system=system)[0] == {"role": "system", "content": expected}
    assert messages_of(system="") == messages_of(system=[]) == HELLO


def test_consecutive_turns_of_one_role_are_merged() -> None:
    turns = [user(text("one")), {"role": "user", "content": "two"}, assistant(text("three")), user(text("four"))]
    assert messages_of(messages=turns) == [
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
    ]


def test_an_empty_assistant_message_leaves_no_turn() -> None:
    assert messages_of(messages=[*HELLO, assistant(), user(text("Well?"))]) == [
        {"role": "user", "content": "Hello\nWell?"}
    ]


def test_a_tool_round_trip_has_the_call_and_its_named_result() -> None:
    thought = {"type": "thinking", "thinking": "Ask.", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    turns = [*HELLO, assistant(thought, hidden, text("Wait."), ASKED), user(result("12 °C"), text("And now?"))]
    function = {"name": "weather", "arguments": '{"place":"Köln"}'}
    assert messages_of(messages=turns)[1:] == [
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "Ask.",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "name": "weather", "content": "12 °C"},
        {"role": "user", "content": "And now?"},
    ]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (result("broken", is_error=True), "Error: broken"),
        (result(None, is_error=True), "Error"),
        (result([text("a"), text("b")], is_error=False), "a\nb"),
        (result([]), ""),
    ],
)
def test_a_tools_result_may_be_blocks_or_an_error(block: Any, expected: str) -> None:
    assert messages_of(messages=[*HELLO, assistant(ASKED), user(block)])[-1]["content"] == expected


def test_numbers_beyond_64_bits_survive_in_a_calls_input() -> None:
    turns = [*HELLO, assistant({**ASKED, "input": {"n": 2**70}}), user(result("x"))]
    (called,) = messages_of(messages=turns)[1]["tool_calls"]
    assert called["function"]["arguments"] == f'{{"n":{2**70}}}'


def test_settings_are_accepted_under_their_own_names() -> None:
    made = call(temperature=0.5, top_k=7, top_p=0.9, seed=3, stop_sequences=["END"])
    assert made.settings == {
        "max_tokens": 5000,
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["END"],
    }
    assert set(SETTINGS.values()) | {"max_tokens"} == {
        row.name for row in TABLE["inference"].values() if row.facts.openai
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, (ToolChoice.AUTO, "", False)),
        ({"type": "auto", "disable_parallel_tool_use": True}, (ToolChoice.AUTO, "", True)),
        ({"type": "any"}, (ToolChoice.REQUIRED, "", False)),
        ({"type": "tool", "name": "weather", "disable_parallel_tool_use": True}, (ToolChoice.NAMED, "weather", True)),
    ],
)
def test_a_tool_choice_says_which_calls_there_may_be(choice: Any, expected: Any) -> None:
    tool = Tool("weather", "Of a place", WEATHER["input_schema"])  # type: ignore[arg-type]
    assert call(tools=[WEATHER], tool_choice=choice).tools == Tools([tool], *expected)


def test_tool_choice_none_omits_the_tools() -> None:
    assert call(tools=[WEATHER], tool_choice={"type": "none"}).tools is None
    assert call(tools=[], tool_choice={"type": "auto"}).tools is None


@pytest.mark.parametrize(
    ("thinking", "arguments"),
    [
        (None, {}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, {"enable_thinking": True}),
        ({"type": "enabled", "budget_tokens": 2048}, {"enable_thinking": True}),
    ],
)
def test_thinking_is_passed_to_the_template(thinking: Any, arguments: Any) -> None:
    assert call(thinking=thinking).template_arguments == arguments


@pytest.mark.parametrize(
    ("thinking", "budget"),
    [
        (None, None),
        ({"type": "disabled"}, 0),
        ({"type": "adaptive"}, None),
        ({"type": "enabled", "budget_tokens": 2048}, 2048),
        ({"type": "enabled", "budget_tokens": 10}, 10),  # less than Anthropic accepts
        ({"type": "enabled", "budget_tokens": 50_000}, 50_000),  # beyond max_tokens, which ends it then
    ],
)
def test_the_budget_of_thinking_is_a_setting(thinking: Any, budget: int | None) -> None:
    assert call(thinking=thinking).settings.get("reasoning_budget") == budget
    assert call(thinking=thinking, reasoning_budget=7).settings["reasoning_budget"] == 7


def test_the_output_config_is_a_schema_and_an_effort() -> None:
    schema = {"type": "object", "properties": {"n": {"maximum": 2**70}}}
    made = call(output_config={"effort": "max", "format": {"type": "json_schema", "schema": schema}})
    assert made.template_arguments == {"reasoning_effort": "max"}
    assert isinstance(made.constraint, JsonSchema)
    assert json.loads(made.constraint.schema) == schema


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": None}, "max_tokens"),
    ({"model": 1}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    ({"messages": [user()]}, "messages[0].content"),
    ({"messages": [user(7)]}, "messages[0].content[0]"),
    ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
    ({"messages": [user({"type": "text", "text": 1})]}, "messages[0].content[0].text"),
    ({"messages": [user({"type": "image", "source": {}})]}, "messages[0].content[0].source.type"),
    ({"messages": [user(image({"type": "file", "file_id": "f"}))]}, "messages[0].content[0].source.type"),
    ({"messages": [user(image({"type": "url", "url": "ftp://a/b"}))]}, "messages[0].content[0].source.url"),
    ({"messages": [assistant(image(DATA)), *HELLO]}, "messages[0].content[0].type"),
    ({"messages": [user(text("a"), {"type": "container_upload"})]}, "messages[0].content[1]"),
    ({"messages": [user({"type": "document"})]}, "messages[0].content[0].source"),
    ({"messages": [user(document(PDF))]}, "messages[0].content[0].source.type"),
    ({"messages": [user(document({"type": "text", "data": 5}))]}, "messages[0].content[0].source.data"),
    (
        {"messages": [user(document({"type": "content", "content": [document(PDF)]}))]},
        "messages[0].content[0].source.content[0]",
    ),
    (
        {"messages": [user(document({"type": "content", "content": [ASKED]}))]},
        "messages[0].content[0].source.content[0]",
    ),
    ({"messages": [assistant(document(PDF)), *HELLO]}, "messages[0].content[0].type"),
    ({"messages": [user({"type": "search_result", "title": "t"})]}, "messages[0].content[0].source"),
    ({"messages": [user(ASKED)]}, "messages[0].content[0].type"),
    ({"messages": [user(result("x"))]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [assistant(result("x")), *HELLO]}, "messages[0].content[0].type"),
    ({"messages": [assistant({**ASKED, "input": []}), *HELLO]}, "messages[0].content[0].input"),
    ({"messages": [assistant(ASKED), user(result([{"type": "image"}]))]}, "messages[1].content[0].content[0].source"),
    ({"messages": [assistant(ASKED), user(result("x", is_error="no"))]}, "messages[1].content[0].is_error"),
    ({"messages": [*HELLO, assistant(text("The answer is "))]}, "messages[1]"),
    ({"system": 5}, "system"),
    ({"system": [image(DATA)]}, "system[0].type"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"input_schema": {"type": "object"}}]}, "tools[0].name"),
    ({"tools": [{"name": "f", "input_schema": {"type": "string"}}]}, "tools[0].input_schema.type"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": "auto"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "perhaps"}}, "thinking.type"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences[0]"),
    ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_k": 2**63}, "top_k"),
    ({"top_p": 2}, "top_p"),
    ({"stream": "yes"}, "stream"),
    ({"metadata": []}, "metadata"),
    ({"mcp_servers": [{"url": "http://x"}]}, "mcp_servers"),
    ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
    ({"compaction": {"type": "summarize"}}, "compaction"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
def test_invalid_input_is_rejected_by_field_name(fields: dict[str, Any], param: str) -> None:
    refused = refusal(**fields)
    assert (refused.param, refused.status) == (param, 400)
    assert refused.message.startswith(param)


def test_errors_name_what_is_not_supported() -> None:
    assert "container_upload" in refusal(messages=[user({"type": "container_upload"})]).message
    assert '"base64"' in refusal(messages=[user(document(PDF))]).message
    served = refusal(tools=[{"type": "bash_20250124", "name": "bash"}])
    assert isinstance(served, UnsupportedField)
    assert "bash_20250124" in served.message


def test_unknown_fields_are_ignored() -> None:
    known = call()
    assert call(service_tier="auto", context_management={"edits": []}, cache_control={"type": "ephemeral"}) == known


def test_counted_tokens_are_those_of_the_prompt_that_is_answered() -> None:
    body = read(system="Be brief.", tools=[WEATHER], thinking={"type": "adaptive"})
    snapshot = Snapshot(models={"a/m": Model(key="a/m")})
    answered, counted = (
        make_plan(each, Origin("r", "f"), snapshot) for each in (messages_call(body), count_call(body))
    )
    effective = answered.effective(None)
    submit = submit_message(answered, answered.call.prompts[0], effective)
    assert submit.chat.tools.tools[0].name == "weather"
    assert chat_tokens_message(counted, None).chat == submit.chat


def completion(reason: StopReason = StopReason.EOS_FOUND, stop: str | None = None, **parts: Any) -> Completion:
    return Completion(parts.pop("text", ""), Finished(0, reason, stop, Statistics()), **parts)


def test_a_reply_has_blocks_of_thinking_text_and_calls() -> None:
    called = [ToolCall("call_1", "weather", '{"place": "Köln"}')]
    blocks = content_blocks(completion(text="Wait.", reasoning="Ask.", tool_calls=called))
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert (blocks[0]["thinking"], blocks[1]["text"]) == ("Ask.", "Wait.")
    assert blocks[0]["signature"]
    assert json.loads(orjson.dumps(blocks[2]))["input"] == {"place": "Köln"}
    assert content_blocks(completion(reasoning="Ask."), show_thinking=False)[0]["thinking"] == ""
    assert content_blocks(completion()) == []


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("", {}),
        ('{"a": 1, "b": {"c": 2', {"a": 1, "b": {"c": 2}}),  # cut off by max_tokens
        (f'{{"n": {2**70}}}', {"n": 2**70}),
        ("[1]", {}),
        ('{"a": NaN}', {}),
        ("no JSON", {}),
    ],
)
def test_a_calls_input_is_always_an_object(arguments: str, read: Any) -> None:
    assert json.loads(orjson.dumps(tool_input(arguments))) == read


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
def test_every_call_input_survives_a_round_trip(value: dict[str, Any]) -> None:
    assert json.loads(orjson.dumps(tool_input(json.dumps(value)))) == value


@pytest.mark.parametrize(
    ("reason", "stop", "expected"),
    [
        (StopReason.EOS_FOUND, None, ("end_turn", None)),
        (StopReason.MAX_PREDICTED_TOKENS_REACHED, None, ("max_tokens", None)),
        (StopReason.CONTEXT_LENGTH_REACHED, None, ("model_context_window_exceeded", None)),
        (StopReason.TOOL_CALLS, None, ("tool_use", None)),
        (StopReason.STOP_STRING_FOUND, "END", ("stop_sequence", "END")),
        (StopReason.STOP_STRING_FOUND, "of a preset", ("end_turn", None)),
    ],
)
def test_a_turn_ends_with_its_stop_reason(reason: StopReason, stop: str | None, expected: Any) -> None:
    finished = Finished(0, reason, stop, Statistics())
    call = Call(model="m", prompts=[Chat([])], settings={"stop": ["END"]})
    assert tuple(ending(finished, call).values()) == expected
    silent = Call(model="m", prompts=[Chat([])])
    assert ending(finished, silent)["stop_sequence"] is None


def test_every_error_has_one_of_anthropics_types() -> None:
    known = {
        *("invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large"),
        *("rate_limit_error", "api_error", "overloaded_error", "timeout_error"),
    }
    assert {error_type(kind.status) for kind in BY_CODE.values()} | {"rate_limit_error"} == known
    assert [error_type(status) for status in (400, 405, 429, 500, 502)] == [
        *("invalid_request_error", "invalid_request_error", "rate_limit_error", "api_error", "api_error")
    ]
    assert error_body(InvalidRequest("No."), "req_1") == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "No."},
        "request_id": "req_1",
    }


def test_a_path_belongs_to_a_dialect_by_its_segments() -> None:
    paths = ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages2", "/v1/models", "/nothing"]
    assert [forms_of_path(path)[0].name for path in paths] == [
        "AnthropicError",
        "AnthropicError",
        "Error",
        "Error",
        "Error",
    ]


MODELS = [{"id": name} for name in "abcde"]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "d"}, "e", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"after_id": "e"}, "", False),
    ],
)
def test_models_are_listed_in_pages(query: dict[str, str], ids: str, more: bool) -> None:
    page = model_page(MODELS, query)
    assert ("".join(entry["id"] for entry in page["data"]), page["has_more"]) == (ids, more)
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"after_id": "z"}, "after_id"),
    ],
)
def test_an_invalid_page_is_rejected(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        model_page(MODELS, query)
    assert caught.value.param == param
