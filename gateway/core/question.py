"""Questions that MCP servers ask the user (elicitation), and the check of the answers. Pure."""

import json
from dataclasses import dataclass
from typing import Literal

import orjson
from jsonschema import Draft202012Validator
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from atelier.errors import InvalidRequest
from atelier.json_types import Json
from gateway.core.schema_check import disagreement

LONGEST_MESSAGE = 4000  # characters
LONGEST_URL = 2048
LARGEST_QUESTION = 32 * 2**10  # bytes, as JSON
LARGEST_CONTENT = 64 * 2**10
MOST_FIELDS = 64
NESTED = ("properties", "$ref", "allOf", "not")  # keywords of fields that are not plain values

Action = Literal["accept", "decline", "cancel"]


@dataclass(frozen=True, slots=True)
class Question:
    """`schema`: of the object that answers it. `url`: a page for the user to visit instead; nothing here opens it."""

    message: str
    schema: Json | None = None
    url: str | None = None

    @property
    def shown(self) -> Json:
        """As clients receive it."""
        if self.schema is not None:
            return {"message": self.message, "requested_schema": self.schema}
        return {"message": self.message, "url": self.url}


@dataclass(frozen=True, slots=True)
class ElicitationAnswer:
    """`content`: of an accepted form; plain values by name."""

    action: Action
    content: Json | None = None

    def result(self) -> ElicitResult:
        return ElicitResult(action=self.action, content=None if self.content is None else dict(self.content))


DECLINED, CANCELLED = ElicitationAnswer("decline"), ElicitationAnswer("cancel")


def read_question(params: ElicitRequestParams) -> Question | None:
    """None: a question of a kind that is not forwarded."""
    if isinstance(params, ElicitRequestFormParams):
        question = Question(params.message, schema=params.requested_schema)
        passes = _is_form(params.requested_schema)
    else:
        question = Question(params.message, url=params.url)
        passes = len(params.url) <= LONGEST_URL and params.url.lower().startswith(("https://", "http://"))
    return question if passes and len(params.message) <= LONGEST_MESSAGE and _fits(question) else None


def checked(question: Question, answer: ElicitationAnswer) -> ElicitationAnswer:
    """The answer for the server. Raises InvalidRequest where it does not match the question's schema."""
    if answer.action != "accept" or question.schema is None:
        return ElicitationAnswer(answer.action)
    content = answer.content or {}
    if len(json.dumps(content)) > LARGEST_CONTENT:
        raise InvalidRequest(f"content: may have at most {LARGEST_CONTENT} bytes", param="content")
    for name, value in content.items():
        if not _is_value(value):
            raise InvalidRequest(
                f"content.{name[:64]}: must be text, a number, true, false or a list of texts", param="content"
            )
    schema = {**question.schema, "additionalProperties": False}
    if wrong := disagreement(schema, content) or _wrong_format(question.schema, content):
        raise InvalidRequest(f"content: does not match requested_schema: {wrong}", param="content")
    return ElicitationAnswer("accept", content)


def write_question(question: Question) -> bytes:
    return orjson.dumps({"message": question.message, "schema": question.schema, "url": question.url})


def stored_question(body: bytes) -> Question:
    return Question(**orjson.loads(body))


def write_answer(answer: ElicitationAnswer) -> bytes:
    # Not orjson, which has no integers of more than 64 bits.
    return json.dumps({"action": answer.action, "content": answer.content}).encode()


def stored_answer(body: bytes) -> ElicitationAnswer:
    return ElicitationAnswer(**json.loads(body))


def _is_form(schema: Json) -> bool:
    """Whether it is a flat object of plain values, as MCP specifies for forms."""
    fields = schema.get("properties")
    return isinstance(fields, dict) and len(fields) <= MOST_FIELDS and all(map(_is_plain, fields.values()))


def _is_plain(field: object) -> bool:
    return isinstance(field, dict) and field.get("type") != "object" and not any(word in field for word in NESTED)


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    return value is None or isinstance(value, str | int | float)


def _fits(question: Question) -> bool:
    try:
        return len(write_question(question)) <= LARGEST_QUESTION
    except TypeError:  # a lone surrogate, or a number of more than 64 bits
        return False


def _wrong_format(schema: Json, content: Json) -> str | None:
    """Checks the formats that the library knows; the server checks the others."""
    for name, value in content.items():
        format = schema["properties"].get(name, {}).get("format")
        if isinstance(format, str) and not Draft202012Validator.FORMAT_CHECKER.conforms(value, format):
            return f"$.{name}: does not have the format {format[:64]}"
    return None
