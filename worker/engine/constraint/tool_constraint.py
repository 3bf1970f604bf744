"""When a chat's completion must keep to the form of tool calls, and to which grammar."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from atelier.errors import InvalidRequest, InvalidSchema
from atelier.submission import Constraint, JsonObject, JsonSchema, ToolChoice, Tools
from worker.engine.constraint.json_schema import embedded_schema
from worker.engine.model.vocabulary import Vocabulary
from worker.output.call_grammar import calls_grammar
from worker.output.format_table import FORMATS
from worker.output.lark_rules import Unwritable
from worker.output.parser_choice import PLAIN, OutputReading
from worker.output.tool_parameters import closed

TOOLS = "tools"


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """A completion that calls tools, or may: a grammar in llguidance's Lark.

    `strict`: schemas of which no keyword may be left unenforced.
    """

    grammar: str
    strict: tuple[str, ...] = ()


def constrain_output(
    reading: OutputReading, constraint: Constraint | None, vocabulary: Vocabulary
) -> tuple[OutputReading, Constraint | ToolCalls | None]:
    """How the completion is read and what it must follow.

    1. Required calls leave no room for another constraint.
    2. A regular expression or a grammar describes all of a completion: it is text.
    3. In place of JSON that is asked for there may be calls, if the model may choose and its calls begin with a
       mark: calls that are JSON themselves could not be told from it.
    4. Required calls are constrained, and so are those of strict tools.
    """
    tools = reading.tools
    if constraint is not None and tools is not None and tools.choice is not ToolChoice.AUTO:
        raise InvalidRequest(
            "tool_choice: the answer must be a tool call, so it cannot also follow a response_format or grammar. "
            "Leave one of them out.",
            param="tool_choice",
        )
    if tools is None:
        return (reading, None) if constraint is None else (PLAIN, constraint)
    is_json = isinstance(constraint, JsonObject | JsonSchema)
    if constraint is not None and not (is_json and reading.format and not reading.format.bare):
        return PLAIN, constraint
    if constraint is None and tools.choice is ToolChoice.AUTO and not any(tool.strict for tool in tools.tools):
        return reading, None
    return _constrained(reading, tools, constraint, vocabulary)


def _constrained(
    reading: OutputReading, tools: Tools, answer: Constraint | None, vocabulary: Vocabulary
) -> tuple[OutputReading, ToolCalls]:
    """In the family's format, or where that cannot be held to a schema and calls are required, as plain JSON."""
    assert reading.format is not None
    strict = [_text(closed(tool.parameters)) for tool in tools.callable if tool.strict]
    if isinstance(answer, JsonSchema) and answer.strict:
        strict.append(answer.schema)
    for format in (reading.format, FORMATS["json"]):
        chosen = replace(reading, format=format)
        try:
            grammar = calls_grammar(
                format, tools, reading.reasoning, reading.opened, vocabulary.spell, _embedded, _schema(answer)
            )
        except Unwritable:
            if tools.choice is ToolChoice.AUTO:
                break
        else:
            return chosen, ToolCalls(grammar, tuple(strict))
    raise InvalidSchema(
        "tools: this model writes arguments in a form that cannot be held to these schemas. Leave strict out, "
        "or limits of strings such as pattern and maxLength.",
        param=TOOLS,
    )


def _embedded(schema: Mapping[str, Any]) -> str:
    try:
        return embedded_schema(schema)
    except InvalidSchema as error:
        raise InvalidSchema(error.message, param=TOOLS) from None


def _schema(answer: Constraint | None) -> Mapping[str, Any] | None:
    match answer:
        case JsonObject():
            return {"type": "object"}
        case JsonSchema(schema):
            return _parsed(schema)
    return None


def _parsed(schema: str) -> Mapping[str, Any]:
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(f"The schema is not JSON: {error}", param="response_format") from None
    return parsed if isinstance(parsed, dict) else {"anyOf": [parsed]}


def _text(schema: Mapping[str, Any]) -> str:
    return orjson.dumps(schema).decode()
