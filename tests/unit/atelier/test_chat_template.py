"""The chat template's sandbox and what Hugging Face's templates expect of it."""

import contextlib

import pytest

from atelier.errors import InvalidTemplate
from atelier.templates.chat_template import ChatTemplate

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def render(source: str, *messages: dict[str, object]) -> str:
    return ChatTemplate(source).render(list(messages), bos="<s>", eos="</s>")


def test_a_prompt_ends_with_the_assistants_turn_opened() -> None:
    prompt = render(CHATML, {"role": "user", "content": "hi"})
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "ab" in render(CHATML, {"role": "user", "content": parts})


def test_a_template_knows_the_special_tokens() -> None:
    assert render("{{ bos_token }}{{ eos_token }}") == "<s></s>"


def test_json_is_not_escaped_for_html() -> None:
    assert render("{{ messages[0] | tojson }}", {"content": "<é>"}) == '{"content": "<é>"}'


def test_generation_marks_and_loop_controls_are_supported() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    assert render(source, {"content": "a"}, {"content": "b"}) == "a"


def test_a_template_that_raises_an_exception_says_why() -> None:
    with pytest.raises(InvalidTemplate, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.clear() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_hostile_template_is_rejected(source: str) -> None:
    with pytest.raises(InvalidTemplate):
        render(source, {"role": "user", "content": "x"})


@pytest.mark.parametrize("content", [None, 1, ["text"], [{"text": 1}], {"a": 1}])
def test_content_of_any_type_is_rendered_or_rejected(content: object) -> None:
    with contextlib.suppress(InvalidTemplate):
        render(CHATML, {"role": "user", "content": content})


def test_a_template_may_change_its_lists_without_changing_the_arguments() -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "a"}]
    source = "{% set q = [1, 2] %}{% set _ = q.append(3) %}{{ q.pop(0) }}{{ q }}{% set _ = messages.pop() %}"
    assert ChatTemplate(source).render(messages, bos="", eos="") == "1[2, 3]"
    assert messages == [{"role": "user", "content": "a"}]


TOOL = {"type": "function", "function": {"name": "now", "description": "", "parameters": {}}}


def test_functions_and_the_time_are_passed_to_templates_that_use_both() -> None:
    source = "{{ 'functools' + functions + datetime }}"
    assert '"name": "now"' in ChatTemplate(source).render([], bos="", eos="", tools=[TOOL])
    assert render(source).startswith("functools[]2")
    assert render("{{ functions is defined }}") == "False"


def test_a_template_may_iterate_over_tools_without_any() -> None:
    assert render("{% for tool in tools %}x{% endfor %}{{ messages[0].content }}", {"content": "hi"}) == "hi"
    assert render("{{ tools is none }}") == "True"


def test_a_template_may_use_arguments_as_text() -> None:
    message = {"tool_calls": [{"function": {"name": "f", "arguments": {"a": "é"}}}]}
    assert render("{{ '>' + messages[0].tool_calls[0].function.arguments }}", message) == '>{"a": "é"}'


def test_the_result_of_a_filter_may_be_written_as_json() -> None:
    assert render("{{ messages | map(attribute='content') | tojson }}", {"content": "a"}) == '["a"]'


def test_json_may_be_written_in_ascii() -> None:
    assert render("{{ messages[0] | tojson(ensure_ascii=True) }}", {"content": "é"}) == '{"content": "\\u00e9"}'


def test_a_template_that_does_not_compile_is_rejected() -> None:
    with pytest.raises(InvalidTemplate, match="does not compile"):
        ChatTemplate("{% if %}")


def test_the_arguments_of_a_call_are_an_object() -> None:
    source = "{{ messages[0].tool_calls[0].function.arguments.city }}|{{ messages[0].content }}|"
    function = {"name": "f", "arguments": '{"city": "Paris"}'}
    message = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
    assert render(source, message) == "Paris||"
    assert function["arguments"] == '{"city": "Paris"}'


@pytest.mark.parametrize("arguments", ["[1]", "not json", "3"])
def test_arguments_other_than_an_object_remain_text(arguments: str) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    assert render("{{ messages[0].tool_calls[0].function.arguments }}", {"tool_calls": [call]}) == arguments
