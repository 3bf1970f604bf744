"""Grammars that would hang or crash a worker, in the process that compiles them first."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest
from llguidance import LLMatcher

from tests.support.worker.byte_vocabulary import END, TOKENS
from worker.engine.constraint.json_schema import schema_grammar
from worker.engine.constraint.sandboxed_compile import CompileSandbox, TokenTable


@pytest.fixture(scope="module")
def box() -> Iterator[CompileSandbox]:
    opened = CompileSandbox(lambda: TokenTable(TOKENS, [END], [END]))
    yield opened
    opened.close()


def chain_of_rules(length: int) -> str:
    rules = "\n".join(f'r{i}: "x" r{i + 1} | "y"' for i in range(length))
    return LLMatcher.grammar_from_lark(f'start: r0\n{rules}\nr{length}: "z"')


def chain_of_references(length: int) -> str:
    definitions = {f"d{i}": {"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(length)}
    definitions[f"d{length}"] = {"type": "string"}
    return schema_grammar(json.dumps({"$ref": "#/$defs/d0", "$defs": definitions}))


def many_pattern_properties() -> str:
    patterns = {f"^a{i}_[a-z]{{1,30}}$": {"type": "string"} for i in range(1000)}
    return schema_grammar(json.dumps({"type": "object", "patternProperties": patterns}))


@pytest.mark.parametrize("hostile", [chain_of_rules(20_000), chain_of_references(10_000), many_pattern_properties()])
def test_a_grammar_that_crashes_the_process_is_rejected_and_the_next_one_compiled(
    box: CompileSandbox, hostile: str
) -> None:
    assert "too much time or memory" in (box.error(hostile) or "")
    assert box.error(chain_of_rules(10)) is None


@pytest.mark.parametrize("pattern", ["(", "[^\\s\\S]"])
def test_a_grammar_that_cannot_match_is_rejected(box: CompileSandbox, pattern: str) -> None:
    assert box.error(LLMatcher.grammar_from_regex(pattern))


def test_large_repetitions_compile(box: CompileSandbox) -> None:
    assert box.error(schema_grammar('{"type": "array", "items": {"type": "integer"}, "maxItems": 100000000}')) is None
    assert box.error(LLMatcher.grammar_from_regex("a{1,100000000}")) is None


def test_the_process_ends_with_its_worker() -> None:
    command = [sys.executable, "-m", "worker.engine.constraint.sandboxed_compile"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        pickle.dump(TokenTable(TOKENS, [END], [END]), process.stdin)
        process.stdin.close()
        assert process.wait(30) == 0
