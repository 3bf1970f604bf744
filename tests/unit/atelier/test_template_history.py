"""Chat histories in the forms that templates of several families expect: ids, names and calls."""

from typing import Any

import pytest

from atelier.errors import InvalidTemplate
from atelier.templates.chat_template import ChatTemplate
from atelier.templates.template_adaptation import short_id

NINE = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{% if c.id is not string or c.id|length != 9 %}{{ raise_exception('nine') }}{% endif %}<{{ c.id }}>"
    "{% endfor %}{% if m.role == 'tool' %}"
    "{% if m['tool_call_id'] is not string or m['tool_call_id']|length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "<{{ m.tool_call_id }}>{% endif %}{% endfor %}"
)
ONE = (
    "{% for m in messages %}{% if m.role == 'tool' %}={{ m.content }}{% elif 'tool_calls' in m %}"
    "{% if m.tool_calls|length != 1 %}{{ raise_exception('one') }}{% endif %}"
    "{{ m.content }}{{ m.reasoning_content }}{{ m.tool_calls[0].function.name }}{% endif %};{% endfor %}"
)
MATCHED = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }} {% endfor %}"
    "{% if m.role == 'tool' %}{{ m.tool_call_id + '=' + m.name }} {% endif %}{% endfor %}"
)


def call(name: str, id: str | None = None) -> dict[str, Any]:
    return {**({"id": id} if id else {}), "type": "function", "function": {"name": name, "arguments": "{}"}}


def made(*calls: dict[str, Any], **said: str) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls), **said}


def result(content: str, **more: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}


def render(source: str, *messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> str:
    return ChatTemplate(source).render(list(messages), bos="", eos="", tools=tools)


def test_ids_have_the_length_that_a_template_requires_and_still_pair_calls_with_results() -> None:
    long, other = "call_abcdefghijklmnopqrstuvwx", "toolu_1"
    history = (made(call("f", long), call("g", other)), result("1", tool_call_id=long), result("2", tool_call_id=other))
    first, second, *answered = render(NINE, *history).strip("<>").split("><")
    assert [first, second] == answered
    assert first != second
    assert render(NINE, *history) == render(NINE, *history)


def test_an_id_that_a_template_accepts_is_unchanged() -> None:
    assert render(NINE, made(call("f", "aB3dE6gH9")), result("1", tool_call_id="aB3dE6gH9")) == "<aB3dE6gH9>" * 2


def test_ids_are_unchanged_where_a_template_accepts_any() -> None:
    source = "{{ messages[0].tool_calls[0].id }}"
    assert render(source, made(call("f", "call_with-signs"))) == "call_with-signs"


@pytest.mark.parametrize("id", ["", "nine-nine", "é23456789", "x" * 1000, "\ud800"])
def test_a_short_id_is_nine_letters_and_digits(id: str) -> None:
    assert short_id(id, 9).isascii()
    assert short_id(id, 9).isalnum()
    assert len(short_id(id, 9)) == 9


def test_results_without_id_and_name_belong_to_the_calls_in_order() -> None:
    history = (made(call("f"), call("g")), result("1"), result("2"))
    assert render(MATCHED, *history) == "call_0_0 call_0_1 call_0_0=f call_0_1=g "


def test_a_result_with_only_a_name_belongs_to_the_call_of_that_name() -> None:
    history = (made(call("f", "a"), call("g", "b")), result("1", name="g"), result("2", name="f"))
    assert render(MATCHED, *history) == "a b b=g a=f "


def test_a_result_is_named_after_its_call() -> None:
    history = (made(call("f", "a"), call("g", "b")), result("1", tool_call_id="b"), result("2", tool_call_id="a"))
    assert render(MATCHED, *history) == "a b b=g a=f "


def test_a_result_without_a_call_is_unchanged() -> None:
    assert render("{{ messages[0] | tojson }}", result("1")) == '{"role": "tool", "content": "1"}'


def test_parallel_calls_are_split_for_a_template_that_writes_one_per_message() -> None:
    calls = made(call("f", "a"), call("g", "b"), content="hm", reasoning_content="so")
    history = (calls, result("1", tool_call_id="b"), result("2", tool_call_id="a"), {"role": "user", "content": "x"})
    assert render(ONE, *history) == "hmsof;=2;g;=1;;"


def test_results_of_unknown_calls_follow_the_others() -> None:
    history = (made(call("f", "a"), call("g", "b")), result("1", tool_call_id="b"), result("?", tool_call_id="c"))
    assert render(ONE, *history) == "f;g;=1;=?;"


def test_parallel_calls_are_kept_for_a_template_that_iterates_over_them() -> None:
    source = "{% for c in messages[0].tool_calls %}{{ c.function.name }}{% endfor %}{{ messages[0].tool_calls[0].id }}"
    assert render(source, made(call("f", "a"), call("g", "b"))) == "fga"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "thought"])
def test_earlier_reasoning_is_passed_under_the_name_that_a_template_reads(name: str) -> None:
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    for source in (f"{{{{ messages[0].{name} }}}}", f"{{{{ messages[0]['{name}'] }}}}"):
        assert render(source, message) == "hm"
    assert render(f"{{{{ messages[0].get('{name}') }}}}", message) == "hm"


def test_reasoning_is_passed_once_to_a_template_that_reads_two_names() -> None:
    source = "{{ messages[0].reasoning }}{{ messages[0].reasoning_content }}"
    assert render(source, {"role": "assistant", "content": "a", "reasoning_content": "hm"}) == "hm"


def test_reasoning_is_a_content_part_for_a_template_that_reads_it_there() -> None:
    source = "{% for p in messages[0].content %}{{ p.thinking if p.type == 'thinking' else p.text }};{% endfor %}"
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert render(source, message) == "hm;a;"
    assert render(source, {**message, "content": ""}) == "hm;"


def test_text_before_calls_joins_the_reasoning_for_a_template_that_accepts_only_one() -> None:
    source = (
        "{% set m = messages[0] %}{% if m.content and m.thinking %}{{ raise_exception('not both') }}{% endif %}"
        "{{ m.thinking }}>{{ m.tool_calls[0].function.name }}"
    )
    both = made(call("f"), content="I look.", reasoning_content="hm")
    assert render(source, both) == "hm\n\nI look.>f"
    with pytest.raises(InvalidTemplate, match="not both"):
        render(source, {"role": "assistant", "content": "I look.", "reasoning_content": "hm"})


def test_a_template_may_write_missing_descriptions_of_arguments() -> None:
    source = (
        "{% for tool in tools %}{% for name, schema in tool.function.parameters.properties|items %}"
        "{{ name + ': ' + schema.description }}"
        "{% if schema.type == 'object' %}{{ schema.additionalProperties.type }}{% endif %};"
        "{% endfor %}{% endfor %}"
    )
    properties: dict[str, Any] = {"a": {"type": "string"}, "b": {"type": "object", "description": "B"}}
    function = {"name": "f", "description": "", "parameters": {"type": "object", "properties": properties}}
    assert render(source, tools=[{"type": "function", "function": function}]) == "a: ;b: B;"
    assert "description" not in properties["a"]


@pytest.mark.parametrize("calls", ["text", [1], [None, {"id": "a"}], {"id": 1}])
def test_malformed_calls_are_passed_to_the_template(calls: object) -> None:
    assert render("{{ messages[0].role }}", {"role": "assistant", "content": "", "tool_calls": calls}) == "assistant"
