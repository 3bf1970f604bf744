"""When a chat's completion has to follow the form of tool calls, and by which grammar."""

from dataclasses import dataclass, replace

import orjson

from atelier.errors import InvalidRequest, InvalidSchema
from atelier.submission import Constraint, JsonObject, JsonSchema, ToolChoice, Tools
from worker.engine.constraint.json_schema import embedded_schema
from worker.engine.model.vocabulary import Vocabulary
from worker.output.completion_parts import AnswerText, Reasoning
from worker.output.family_table import FORMATS
from worker.output.parameter_schema import Schema, UnsupportedSchema, closed
from worker.output.parser_choice import PLAIN_TEXT, ParserChoice
from worker.output.tool_call_grammar import calls_grammar

TOOLS = "tools"


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """A completion that calls tools, or may: a grammar in llguidance's Lark dialect.

    `strict`: schemas whose every keyword must be enforced.
    """

    grammar: str
    strict: tuple[str, ...] = ()


def constrain_output(
    choice: ParserChoice, constraint: Constraint | None, vocabulary: Vocabulary
) -> tuple[ParserChoice, Constraint | ToolCalls | None]:
    """How the completion is parsed, and what it must follow.

    1. Required calls exclude any other constraint.
    2. A regular expression or a grammar describes the whole completion, which is then text.
    3. In place of requested JSON the model may call tools, if it may choose and its calls begin with a mark:
       calls that are JSON themselves could not be distinguished from the answer.
    4. Required calls are constrained, and so are the calls of strict tools.
    5. A completion that continues a message follows its constraint from its own first token on. It cannot where the
       message is a thought; and where it is text, no call is required any more.
    """
    tools = choice.tools
    if choice.continued is not None:
        _check_continued(choice, constraint)
    if constraint is not None and tools is not None and tools.choice is not ToolChoice.AUTO:
        raise InvalidRequest(
            "tool_choice: the answer must be a tool call, so it cannot also follow a response_format or grammar. "
            "Leave one of them out.",
            param="tool_choice",
        )
    if tools is None:
        return (choice, None) if constraint is None else (PLAIN_TEXT, constraint)
    is_json = isinstance(constraint, JsonObject | JsonSchema)
    if constraint is not None and not (is_json and choice.format and not choice.format.bare):
        return PLAIN_TEXT, constraint
    if constraint is None and tools.choice is ToolChoice.AUTO and not any(tool.strict for tool in tools.tools):
        return choice, None
    return _constrained(choice, tools, constraint, vocabulary)


def _check_continued(choice: ParserChoice, constraint: Constraint | None) -> None:
    if choice.continued is Reasoning and constraint is not None:
        raise InvalidRequest(
            "The last message is a thought, and its continuation cannot follow a response_format or grammar. "
            "Leave that out, or continue the answer's text.",
            param="messages",
        )
    if choice.continued is AnswerText and choice.tools is not None and choice.tools.choice is not ToolChoice.AUTO:
        raise InvalidRequest(
            "tool_choice: no call can be required in the continuation of an answer's text. Let the model choose, or "
            "leave the last message out.",
            param="tool_choice",
        )


def _constrained(
    choice: ParserChoice, tools: Tools, answer: Constraint | None, vocabulary: Vocabulary
) -> tuple[ParserChoice, ToolCalls]:
    """In the family's format. If this cannot guarantee the schemas and calls are required, as plain JSON."""
    assert choice.format is not None
    strict = [_json(closed(tool.parameters)) for tool in tools.callable if tool.strict]
    if isinstance(answer, JsonSchema) and answer.strict:
        strict.append(answer.schema)
    for format in (choice.format, FORMATS["json"]):
        try:
            grammar = calls_grammar(
                format,
                tools,
                choice.reasoning,
                choice.opened,
                vocabulary.spell,
                _embedded,
                _answer_schema(answer),
                choice.continued,
            )
        except UnsupportedSchema:
            if tools.choice is ToolChoice.AUTO:
                break
        else:
            return replace(choice, format=format), ToolCalls(grammar, tuple(strict))
    raise InvalidSchema(
        "tools: this model writes arguments in a form that cannot guarantee these schemas. Leave strict out, "
        "or limits of strings such as pattern and maxLength.",
        param=TOOLS,
    )


def _embedded(schema: Schema) -> str:
    try:
        return embedded_schema(schema)
    except InvalidSchema as error:
        raise InvalidSchema(error.message, param=TOOLS) from None


def _answer_schema(answer: Constraint | None) -> Schema | None:
    match answer:
        case JsonObject():
            return {"type": "object"}
        case JsonSchema(schema):
            return _parsed(schema)
    return None


def _parsed(schema: str) -> Schema:
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(f"The schema is not JSON: {error}", param="response_format") from None
    return parsed if isinstance(parsed, dict) else {"anyOf": [parsed]}


def _json(schema: Schema) -> str:
    return orjson.dumps(schema).decode()
