"""Matchers and schemas, over a vocabulary of bytes."""

import json
from typing import Any

import numpy as np
import pytest

from atelier.errors import InvalidGrammar, InvalidRequest, InvalidSchema
from tests.support.worker.byte_vocabulary import END, SIZE, TOKENS, byte_tokenizer
from worker.engine.constraint.constraint_matcher import MOST_FORCED, Matcher
from worker.engine.constraint.json_schema import MOST_KEYWORDS, schema_grammar, unenforced_keywords
from worker.engine.constraint.sandboxed_compile import start_matcher

TOKENIZER = byte_tokenizer()


def matcher(grammar: str) -> Matcher:
    return Matcher(start_matcher(TOKENIZER, grammar), SIZE, InvalidGrammar)


def regex(pattern: str) -> Matcher:
    return matcher(json.dumps({"grammars": [{"lark_grammar": f"start: /{pattern}/"}]}))


def allowed(place: Matcher) -> set[int]:
    logits = np.zeros(SIZE, dtype=np.float32)
    place.apply(logits)
    return set(np.flatnonzero(logits == 0).tolist())


def test_a_mask_forbids_disallowed_next_tokens() -> None:
    place = regex("[ab]c")
    assert allowed(place) == {ord("a"), ord("b")}
    assert place.consume(ord("b"))
    assert allowed(place) == {ord("c")}


def test_a_mask_computed_ahead_is_applied() -> None:
    place = regex("[ab]c")
    place.compute_mask()
    assert allowed(place) == {ord("a"), ord("b")}
    place.consume(ord("a"))
    place.compute_mask()
    assert allowed(place) == {ord("c")}


def test_a_mask_leaves_allowed_logits_unchanged() -> None:
    logits = np.arange(SIZE, dtype=np.float32)
    regex("[ab]").apply(logits)
    assert (logits[ord("a")], logits[ord("b")], logits[ord("c")]) == (97, 98, -np.inf)


def test_forced_tokens_are_accepted_and_not_consumed() -> None:
    place = regex("x(hello|help) w?")
    assert bytes(place.forced()) == b"xhel"
    assert place.consume(ord("x"))
    assert place.consume_all(place.forced())
    assert place.forced() == []
    assert allowed(place) == {ord("l"), ord("p")}


def test_a_long_forced_text_is_returned_in_parts() -> None:
    place, text = regex("x" * 100 + "y"), b""
    while part := place.forced():
        assert len(part) <= MOST_FORCED
        assert allowed(place) == {part[0]}
        text += bytes(part)
        place.consume_all(part)
    assert text == b"x" * 100 + b"y"


def test_a_token_other_than_the_forced_one_changes_what_is_forced() -> None:
    tokens = [*TOKENS[:-1], b"xx", b"<end>"]
    place = Matcher(
        start_matcher(byte_tokenizer(tokens), json.dumps({"grammars": [{"lark_grammar": "start: /xxy/"}]})),
        len(tokens),
        InvalidGrammar,
    )
    first = place.forced()
    place.consume(256 if first[0] != 256 else ord("x"))
    rest = place.forced()
    assert b"".join(tokens[token] for token in rest) == (b"y" if first[0] != 256 else b"xy")


def test_the_last_token_completes_the_text() -> None:
    assert not regex("abc").consume_all(list(b"abc"))
    assert regex("abc?").consume_all(list(b"ab"))


def test_an_end_is_allowed_where_the_text_may_end() -> None:
    place = regex("ab?")
    assert END not in allowed(place)
    place.consume(ord("a"))
    assert allowed(place) == {ord("b"), END}
    assert not place.consume(END)


def test_a_disallowed_token_raises_an_error() -> None:
    place = regex("ab")
    with pytest.raises(InvalidGrammar, match="The constraint failed"):
        place.consume(ord("x"))
    with pytest.raises(InvalidRequest):
        place.compute_mask()
    with pytest.raises(InvalidRequest):
        place.forced()


def test_tokens_can_be_rolled_back() -> None:
    place = regex("[ab]cd")
    place.consume_all(list(b"ac"))
    place.rollback(1)
    assert allowed(place) == {ord("c")}
    place.rollback(1)
    assert allowed(place) == {ord("a"), ord("b")}


def test_acceptable_tokens_are_counted_without_being_consumed() -> None:
    place = regex("abc")
    assert place.acceptable(list(b"abx")) == 2
    assert place.acceptable(list(b"abc")) == 3
    assert allowed(place) == {ord("a")}


def test_a_copy_is_independent() -> None:
    place = regex("[ab]c")
    place.compute_mask()
    copy = place.copy()
    copy.consume(ord("a"))
    assert allowed(copy) == {ord("c")}
    assert allowed(place) == {ord("a"), ord("b")}


def warnings_of(schema: Any) -> tuple[str, ...]:
    compiled = start_matcher(TOKENIZER, schema_grammar(json.dumps(schema)))
    assert not compiled.is_error(), compiled.get_error()
    return unenforced_keywords(compiled.get_grammar_warnings())


@pytest.mark.parametrize(
    ("schema", "keywords"),
    [
        ({"type": "string", "maxLength": 3, "title": "x", "unheard-of": 1}, ()),
        ({"not": {}}, ("not",)),
        ({"type": "array", "uniqueItems": True, "contains": {}}, ("contains", "uniqueItems")),
        ({"if": {}, "then": {}, "else": {}}, ("else", "if", "then")),
        ({"type": "string", "format": "unheard-of, not"}, ("format",)),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, ("oneOf",)),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ()),
        ({"$dynamicRef": "#a"}, ("$dynamicRef",)),
        ({"x-guidance": {"lenient": False}, "not": {}}, ("not",)),
    ],
)
def test_unenforced_keywords_are_reported(schema: Any, keywords: tuple[str, ...]) -> None:
    assert warnings_of(schema) == keywords


def test_counts_of_optional_properties_are_not_enforced() -> None:
    schema = {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}
    assert warnings_of(schema) == ("minProperties", "maxProperties")


def test_a_union_of_references_is_enforced() -> None:
    member = {"type": "object", "required": ["kind"], "additionalProperties": False}
    cat = {**member, "properties": {"kind": {"const": "cat"}}}
    dog = {**member, "properties": {"kind": {"const": "dog"}}}
    union = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "$defs": {"cat": cat, "dog": dog}}
    assert warnings_of(union) == ()


def test_keywords_in_a_header_are_few_and_plain() -> None:
    warnings = [f'Unimplemented keys: ["a{chr(97 + i)}\\r\\nX-Evil: 1"]' for i in range(26)]
    found = unenforced_keywords(warnings)
    assert len(found) == MOST_KEYWORDS
    assert all(keyword.isalpha() for keyword in found)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("not json", "not JSON"),
        ("[" * 60_000, "JSON|deeper"),
        ('{"properties": ' * 500 + "{}" + "}" * 500, "deeper"),
        ('{"title": "' + "x" * 2**20 + '"}', "longer"),
        ('{"multipleOf": 1000003}', "multipleOf"),
        ('{"allOf": [{"multipleOf": 997}, {"properties": {"a": {"multipleOf": 0.991}}}]}', "multipleOf"),
    ],
)
def test_a_schema_too_large_to_compile_is_rejected(schema: str, reason: str) -> None:
    with pytest.raises(InvalidSchema, match=reason):
        schema_grammar(schema)


@pytest.mark.parametrize("multiple", [0.01, 100, 25, 1e-9, 99_991, 0])
def test_usual_values_of_multiple_of_are_accepted(multiple: float) -> None:
    schema_grammar(json.dumps({"type": "number", "multipleOf": multiple}))
