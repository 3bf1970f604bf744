"""Constrained completions with the real model: schemas, grammars, regular expressions, and hostile ones."""

import json
import re
import time
from typing import Any

import jsonschema
import pytest

from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

LONGEST_REFUSAL = 10.0  # seconds; a second of CPU time, on a machine that may be busy

MOVE = r"""
root ::= "1. " move " " move "\n2. " move
move ::= [NBRQK]? [a-h] [1-8] | "O-O"
"""
SUM = """
%llguidance {}
start: number (" + " number){2} "."
number: /[1-9][0-9]?/
"""
NESTED = """
root ::= list "!"
list ::= "(" ( [a-c] | list ){1,3} ")"
"""


async def complete(client: WorkerClient, **fields: Any) -> tuple[str, pb.Event]:
    fields["sampling"] = {"max_tokens": 120, "seed": 4, **fields.get("sampling", {})}
    await client.submit(1, "Write something.", **fields)
    texts, ends = await client.finish(1)
    return texts[0], ends[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    ("constraint", "form"),
    [
        ({"regex": "(yes|no), [a-z]{3,8}[.!]"}, "(yes|no), [a-z]{3,8}[.!]"),
        ({"gbnf": MOVE}, r"1\. ([NBRQK]?[a-h][1-8]|O-O) ([NBRQK]?[a-h][1-8]|O-O)\n2\. ([NBRQK]?[a-h][1-8]|O-O)"),
        ({"lark": SUM}, r"[1-9]\d? \+ [1-9]\d? \+ [1-9]\d?\."),
    ],
)
async def test_a_text_has_the_requested_form(
    client: WorkerClient, constraint: dict[str, Any], form: str, temperature: float
) -> None:
    text, end = await complete(client, **constraint, sampling={"temperature": temperature})
    assert end.finished.reason == pb.EOS_FOUND
    assert re.fullmatch(form, text), text


async def test_a_grammar_may_be_recursive(client: WorkerClient) -> None:
    for seed in range(5):
        text, end = await complete(client, gbnf=NESTED, sampling={"temperature": 1.5, "seed": seed})
        if end.finished.reason == pb.EOS_FOUND:
            assert re.fullmatch(r"[a-c()]+!", text)
            assert text.count("(") == text.count(")")


@pytest.mark.parametrize(
    "sampling",
    [
        {"typical_p": 0.5},
        {"typical_p": 0.5, "top_n_sigma": 1.0},
        {"xtc_probability": 1.0, "xtc_threshold": 0.05},
        {"mirostat": 1},
        {"mirostat": 2, "mirostat_tau": 2.0},
        {"dynatemp_range": 0.8},
        {"dry_multiplier": 0.8},
        {"dry_multiplier": 5.0, "temperature": 0.0},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
    ],
)
async def test_every_sampler_follows_a_schema(client: WorkerClient, sampling: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text, end = await complete(client, json_schema=json.dumps(schema), sampling=sampling)
    assert end.finished.reason == pb.EOS_FOUND, end
    jsonschema.validate(json.loads(text), schema)


async def test_unenforced_keywords_are_named(client: WorkerClient) -> None:
    schema = json.dumps({"type": "array", "items": {"type": "integer"}, "maxItems": 3, "uniqueItems": True})
    await client.submit(1, "Numbers.", json_schema=schema, sampling={"max_tokens": 60})
    assert list((await client.next(1)).accepted.unenforced) == ["uniqueItems"]
    texts, _ = await client.finish(1)
    assert len(json.loads(texts[0])) <= 3


async def test_strict_rejects_unenforced_keywords(client: WorkerClient) -> None:
    await client.submit(1, "Numbers.", json_schema='{"type": "array", "uniqueItems": true}', strict=True)
    error = (await client.next(1)).failed.error
    assert (error.code, error.param) == ("invalid_json_schema", "response_format")
    assert "uniqueItems" in error.message


async def test_strict_accepts_a_union_of_models(client: WorkerClient) -> None:
    def member(kind: str) -> dict[str, Any]:
        properties = {"kind": {"const": kind, "type": "string"}}
        return {"type": "object", "properties": properties, "required": ["kind"], "additionalProperties": False}

    schema = {
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "$defs": {"Cat": member("cat"), "Dog": member("dog")},
    }
    text, _ = await complete(client, json_schema=json.dumps(schema), strict=True)
    assert json.loads(text)["kind"] in ("cat", "dog")


def references(length: int) -> str:
    definitions = {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(length)}
    return json.dumps({"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{length}": {"type": "string"}}})


def rules(length: int) -> str:
    lines = "\n".join(f'r{i}: "x" r{i + 1} | "y"' for i in range(length))
    return f'start: r0\n{lines}\nr{length}: "z"'


PATTERNS = {"type": "object", "patternProperties": {f"^a{i}_[a-z]{{1,30}}$": {} for i in range(400)}}
INTERSECTION = {"allOf": [{"type": "string", "pattern": f"a{{{i},{i + 50}}}.*b"} for i in range(60)]}
PROPERTIES = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(10_000)}}


@pytest.mark.parametrize(
    ("constraint", "param"),
    [
        ({"json_schema": references(6000)}, "response_format"),
        ({"json_schema": json.dumps(PATTERNS)}, "response_format"),
        ({"json_schema": json.dumps(INTERSECTION)}, "response_format"),
        ({"json_schema": json.dumps(PROPERTIES)}, "response_format"),
        ({"json_schema": '{"multipleOf": 1000003}'}, "response_format"),
        ({"json_schema": '{"$ref": "#"}'}, "response_format"),
        ({"regex": "("}, "regex"),
        ({"regex": r"[^\s\S]"}, "regex"),
        ({"regex": "(" * 20_000 + "a" + ")" * 20_000}, "regex"),
        ({"regex": "a" * 100_000}, "regex"),
        ({"gbnf": "root ::= nothing"}, "grammar"),
        ({"gbnf": 'root ::= root "a"'}, "grammar"),
        ({"gbnf": "root ::= " + "(" * 1000 + '"a"' + ")" * 1000}, "grammar"),
        ({"lark": "start: nothing"}, "grammar"),
        ({"lark": rules(3000)}, "grammar"),
    ],
)
async def test_a_hostile_constraint_is_rejected_in_time_and_the_next_call_works(
    client: WorkerClient, constraint: dict[str, str], param: str
) -> None:
    begun = time.monotonic()
    _, end = await complete(client, **constraint)
    assert end.failed.error.code in ("invalid_json_schema", "invalid_grammar")
    assert end.failed.error.param == param
    assert time.monotonic() - begun < LONGEST_REFUSAL
    text, _ = await complete(client, regex="ok")
    assert text == "ok"


@pytest.mark.parametrize(
    "constraint",
    [
        {"json_schema": '{"type": "array", "items": {"type": "integer"}, "minItems": 100000000}'},
        {"json_schema": '{"type": "string", "minLength": 100000000}'},
        {"json_schema": json.dumps({"enum": [f"value number {i}" for i in range(20_000)]})},
        {"regex": "a{1,100000000}"},
        {"regex": r"(\w{1,100}\s){1,100}"},
        {"regex": "(a|b)*a(a|b){200}"},
        {"regex": "(.{1,300}a){1,300}b"},
        {"lark": 'start: x x x x\nx: x x | "a" x | x "a" | /[ab]/ | ""'},
    ],
)
async def test_a_large_constraint_ends_with_an_answer_or_an_error(
    client: WorkerClient, constraint: dict[str, str]
) -> None:
    _, end = await complete(client, **constraint, sampling={"max_tokens": 40, "temperature": 1.5})
    if end.HasField("failed"):
        assert end.failed.error.message.startswith("The ")
    text, _ = await complete(client, regex="ok")
    assert text == "ok"
