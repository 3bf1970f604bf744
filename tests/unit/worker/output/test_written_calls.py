"""Calls of earlier turns, for templates that omit them."""

from typing import Any

import pytest

from tests.support.gateway.completions import parts_of
from tests.unit.worker.output.test_families import TOOLS
from worker.output.completion_parser import CompletionParser
from worker.output.family_detection import drops_calls
from worker.output.family_table import FORMATS
from worker.output.toolless_templates import with_calls_written

CALLS: list[dict[str, Any]] = [
    {
        "id": "1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "l\'\\u00e9", "x": null}'},
    },
    {"id": "2", "type": "function", "function": {"name": "now", "arguments": {}}},
]


def test_a_template_that_omits_calls_is_recognised() -> None:
    assert drops_calls("{% if tools %}List of tools: [{% endif %}")
    assert not drops_calls("{% if tools %}{{ message.tool_calls }}{% endif %}")
    assert not drops_calls("{{ messages[0].content }}")


@pytest.mark.parametrize("format", ["lfm2", "granite", "hermes", "glm"])
def test_calls_are_written_in_the_form_that_the_family_parses(format: str) -> None:
    (message,) = with_calls_written([{"role": "assistant", "content": "I look.", "tool_calls": CALLS}], FORMATS[format])
    assert "tool_calls" not in message
    read = FORMATS[format if format != "glm" else "json"]
    said, first, second = parts_of(CompletionParser(read, None, TOOLS), [message["content"]])
    assert said == ("text", "I look.")
    assert first == ("call", "get_weather", '{"city": "l\'é", "x": null}')
    assert second == ("call", "now", "{}")


def test_a_call_of_lfm2_is_written_as_python() -> None:
    (message,) = with_calls_written([{"role": "assistant", "content": None, "tool_calls": CALLS}], FORMATS["lfm2"])
    assert message["content"] == """<|tool_call_start|>[get_weather(city="l'é", x=None), now()]<|tool_call_end|>"""
    parts = [{"type": "text", "text": "a"}]
    (message,) = with_calls_written([{"role": "assistant", "content": parts, "tool_calls": CALLS}], FORMATS["lfm2"])
    assert [part["text"][:2] for part in message["content"]] == ["a", "<|"]


@pytest.mark.parametrize("calls", [None, [], "x", [1], [{}]])
def test_messages_without_calls_are_unchanged(calls: object) -> None:
    message = {"role": "assistant", "content": "a", "tool_calls": calls}
    assert with_calls_written([message], FORMATS["lfm2"]) == [message]
