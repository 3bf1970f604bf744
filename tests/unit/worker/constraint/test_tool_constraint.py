"""When a completion is constrained to tool calls."""

from typing import cast

import pytest

from atelier.errors import InvalidRequest, InvalidSchema
from atelier.submission import Constraint, JsonObject, JsonSchema, Lark, Regex, Tool, ToolChoice, Tools
from worker.engine.constraint.tool_constraint import ToolCalls, constrain_output
from worker.engine.model.vocabulary import Vocabulary
from worker.output.completion_parts import AnswerText, Reasoning
from worker.output.family_table import FORMATS
from worker.output.parser_choice import PLAIN_TEXT, ParserChoice, within

LIMITED = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x+"}}}


class Letters:
    """A vocabulary without control tokens."""

    def spell(self, text: str) -> list[str | int]:
        return [text]


VOCABULARY = cast(Vocabulary, Letters())


def choice_of(tools: Tools | None, format: str = "hermes") -> ParserChoice:
    return ParserChoice(FORMATS[format], None, tools)


def constrained(
    tools: Tools | None, constraint: Constraint | None = None, format: str = "hermes"
) -> tuple[ParserChoice, Constraint | ToolCalls | None]:
    return constrain_output(choice_of(tools, format), constraint, VOCABULARY)


def test_tools_that_may_be_called_leave_the_completion_free() -> None:
    tools = Tools([Tool("f")])
    assert constrained(tools) == (choice_of(tools), None)
    assert constrained(None) == (choice_of(None), None)


@pytest.mark.parametrize("constraint", [JsonObject(), JsonSchema("{}"), Regex("a"), Lark("start: x")])
@pytest.mark.parametrize("choice", [ToolChoice.REQUIRED, ToolChoice.NAMED])
def test_required_calls_cannot_be_combined_with_another_constraint(constraint: Constraint, choice: ToolChoice) -> None:
    with pytest.raises(InvalidRequest) as refused:
        constrained(Tools([Tool("f")], choice, "f"), constraint)
    assert refused.value.param == "tool_choice"


def test_a_text_constraint_excludes_calls() -> None:
    for tools in (None, Tools([Tool("f")])):
        assert constrained(tools, Regex("a")) == (PLAIN_TEXT, Regex("a"))
    assert constrained(None, JsonObject()) == (PLAIN_TEXT, JsonObject())
    assert constrained(Tools([Tool("f")]), JsonObject(), "json") == (PLAIN_TEXT, JsonObject())


def test_a_json_format_allows_calls() -> None:
    tools = Tools([Tool("f")])
    read, constraint = constrained(tools, JsonSchema('{"type": "object"}', strict=True))
    assert read == choice_of(tools)
    assert isinstance(constraint, ToolCalls)
    assert constraint.strict == ('{"type": "object"}',)


def test_required_calls_are_json_where_the_family_does_not_support_the_schema() -> None:
    tools = Tools([Tool("f", parameters=LIMITED)], ToolChoice.REQUIRED)
    read, constraint = constrained(tools, format="glm")
    assert read.format == FORMATS["json"]
    assert isinstance(constraint, ToolCalls)


def test_strict_tools_that_a_family_does_not_support_are_rejected() -> None:
    with pytest.raises(InvalidSchema) as refused:
        constrained(Tools([Tool("f", parameters=LIMITED, strict=True)]), format="glm")
    assert refused.value.param == "tools"


def test_a_too_large_schema_is_reported_for_its_tool() -> None:
    deep: dict[str, object] = {}
    for _ in range(80):
        deep = {"properties": {"a": deep}}
    with pytest.raises(InvalidSchema) as refused:
        constrained(Tools([Tool("f", parameters=deep)], ToolChoice.REQUIRED))
    assert refused.value.param == "tools"


def test_a_continued_text_follows_its_constraint_from_there_on() -> None:
    assert constrain_output(within(choice_of(None), AnswerText), Regex("a"), VOCABULARY) == (PLAIN_TEXT, Regex("a"))


@pytest.mark.parametrize("constraint", [JsonObject(), Regex("a")])
@pytest.mark.parametrize("tools", [None, Tools([Tool("f")])])
def test_a_continued_thought_cannot_follow_a_constraint(constraint: Constraint, tools: Tools | None) -> None:
    with pytest.raises(InvalidRequest, match="thought") as refused:
        constrain_output(within(choice_of(tools), Reasoning), constraint, VOCABULARY)
    assert refused.value.param == "messages"


@pytest.mark.parametrize("choice", [ToolChoice.REQUIRED, ToolChoice.NAMED])
def test_no_call_can_be_required_after_a_text_has_begun(choice: ToolChoice) -> None:
    tools = Tools([Tool("f")], choice, "f")
    with pytest.raises(InvalidRequest) as refused:
        constrain_output(within(choice_of(tools), AnswerText), None, VOCABULARY)
    assert refused.value.param == "tool_choice"
    _, constraint = constrain_output(within(choice_of(tools), Reasoning), None, VOCABULARY)
    assert isinstance(constraint, ToolCalls)
