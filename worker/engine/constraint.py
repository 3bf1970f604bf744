"""Constrained decoding: llguidance decides which tokens may come next, over llama.cpp's logits."""

import threading
from typing import Any

import numpy as np
import orjson
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from atelier.errors import InvalidSchema
from worker.engine.interface import Constraint, JsonObject, JsonSchema
from worker.engine.vocabulary import Vocabulary

DEEPEST_SCHEMA = 64  # levels
LONGEST_SCHEMA = 2**20  # bytes
# One space after a comma or a colon, as models write it: free white space lets small ones loop in it.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class ConstraintCompiler:
    """Compiles constraints for one vocabulary. Its table is built at the first use."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._building = threading.Lock()

    def compile(self, constraint: Constraint) -> "Matcher | None":
        """A matcher at its start; InvalidSchema when nothing could ever match."""
        match constraint:
            case None:
                return None
            case JsonObject():
                schema = '{"type": "object"}'
            case JsonSchema(schema):
                _check_size(schema)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults=_JSON_STYLE)
        except ValueError as error:
            raise InvalidSchema(f"The schema cannot be used: {_one_line(str(error))}", param=_PARAM) from None
        matcher = LLMatcher(self._table(), grammar, log_level=0, limits=LLParserLimits())
        if matcher.is_error():
            raise InvalidSchema(f"The schema cannot be used: {_one_line(matcher.get_error())}", param=_PARAM)
        return Matcher(matcher, self._vocabulary.size)

    def _table(self) -> LLTokenizer:
        with self._building:
            if self._tokenizer is None:
                ends = [self._vocabulary.eos, *sorted(self._vocabulary.end_tokens - {self._vocabulary.eos})]
                self._tokenizer = lltokenizer_from_vocab(
                    self._vocabulary.handle, eos_token=[token for token in ends if token >= 0]
                )
            return self._tokenizer


_PARAM = "response_format"


class Matcher:
    """Where one sequence stands in its grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._size = vocabulary_size
        self._mask = allocate_token_bitmask(1, vocabulary_size)

    def copy(self) -> "Matcher":
        return Matcher(self._matcher.deep_copy(), self._size)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Forbid, in place, every token that may not come next."""
        fill_next_token_bitmask(self._matcher, self._mask)
        allowed = np.unpackbits(self._mask.view(np.uint8)[0], count=self._size, bitorder="little")
        logits[allowed == 0] = -np.inf

    def consume(self, token: int) -> bool:
        """Advance by a token; False when the text is complete."""
        if not self._matcher.consume_token(token):
            raise InvalidSchema(f"The constraint failed: {_one_line(self._matcher.get_error())}", param=_PARAM)
        return not self._matcher.is_stopped()


def _check_size(schema: str) -> None:
    if len(schema) > LONGEST_SCHEMA:
        raise InvalidSchema(f"The schema is longer than {LONGEST_SCHEMA} bytes.", param=_PARAM)
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise InvalidSchema(f"The schema is not JSON: {error}", param=_PARAM) from None
    if _depth(parsed) > DEEPEST_SCHEMA:
        raise InvalidSchema(f"The schema is nested deeper than {DEEPEST_SCHEMA} levels.", param=_PARAM)


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, level = 0, [value]
    while level:
        children: list[Any] = []
        for node in level:
            children.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        deepest, level = deepest + 1, children
    return deepest


def _one_line(message: str) -> str:
    return " ".join(message.split())[:500] or "no reason given"
