"""What a completion must follow: the kinds, and how they travel in a Submit."""

from dataclasses import dataclass

from protos.inference_pb2 import Submit

MOST_KEYWORDS = 16  # of a schema, that are named as not enforced
KEYWORD = r"[$A-Za-z]{1,40}"


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON of this schema, itself JSON text.

    `strict`: a keyword that cannot be enforced is an error; otherwise Accepted names it.
    """

    schema: str
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression, from the completion's beginning to its end."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Lark:
    """A grammar in llguidance's Lark dialect."""

    text: str


@dataclass(frozen=True, slots=True)
class Gbnf:
    """A grammar in llama.cpp's notation."""

    text: str


Constraint = JsonObject | JsonSchema | Regex | Lark | Gbnf


def set_constraint(submit: Submit, constraint: Constraint | None) -> None:
    match constraint:
        case JsonObject():
            submit.json_object = True
        case JsonSchema(schema, strict):
            submit.json_schema = schema
            if strict is not None:
                submit.strict = strict
        case Regex(pattern):
            submit.regex = pattern
        case Lark(text):
            submit.lark = text
        case Gbnf(text):
            submit.gbnf = text


def read_constraint(submit: Submit) -> Constraint | None:
    match submit.WhichOneof("constraint"):
        case "json_object":
            return JsonObject() if submit.json_object else None
        case "json_schema":
            return JsonSchema(submit.json_schema, submit.strict if submit.HasField("strict") else None)
        case "regex":
            return Regex(submit.regex)
        case "lark":
            return Lark(submit.lark)
        case "gbnf":
            return Gbnf(submit.gbnf)
    return None
