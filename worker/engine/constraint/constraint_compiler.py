"""Compiles what a completion has to follow (JSON Schema, regular expression, grammar, tool calls) with llguidance."""

import threading
from collections import OrderedDict

from llguidance import LLMatcher, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab

from atelier.errors import InvalidGrammar, InvalidRequest, InvalidSchema
from atelier.submission import Constraint, Gbnf, JsonObject, JsonSchema, Lark, Regex
from worker.engine.constraint.constraint_matcher import Matcher, Refusal
from worker.engine.constraint.gbnf_parser import GbnfError
from worker.engine.constraint.gbnf_to_lark import gbnf_to_lark
from worker.engine.constraint.json_schema import PARAM, one_line, schema_grammar, unenforced_keywords
from worker.engine.constraint.sandboxed_compile import CompileSandbox, TokenTable, start_matcher
from worker.engine.constraint.tool_constraint import TOOLS, ToolCalls
from worker.engine.model.vocabulary import Vocabulary

LONGEST_GRAMMAR = 2**16  # bytes
KEPT = 16  # compiled constraints that are kept for the next request
ANY_OBJECT = '{"type": "object"}'


class ConstraintCompiler:
    """Compiles constraints for one vocabulary, one at a time. llguidance's table of tokens is built at the first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._sandbox = CompileSandbox(lambda: _token_table(self._table()))
        self._outcomes: OrderedDict[Constraint | ToolCalls, Matcher | InvalidRequest] = OrderedDict()
        self._compiling = threading.Lock()

    def compile(self, constraint: Constraint | ToolCalls) -> Matcher:
        """A matcher at its start. Raises InvalidSchema or InvalidGrammar when no text could ever match."""
        with self._compiling:
            outcome = self._outcomes.get(constraint) or self._outcome(constraint)
            self._outcomes[constraint] = outcome
            self._outcomes.move_to_end(constraint)
            if len(self._outcomes) > KEPT:
                self._outcomes.popitem(last=False)
        if isinstance(outcome, InvalidRequest):
            raise type(outcome)(outcome.message, param=outcome.param)
        return outcome.copy()

    def close(self) -> None:
        self._sandbox.close()

    def _outcome(self, constraint: Constraint | ToolCalls) -> Matcher | InvalidRequest:
        try:
            matcher = self._compile(constraint)
            if isinstance(constraint, JsonSchema) and constraint.strict and matcher.unenforced:
                return InvalidSchema(_not_enforced(matcher), param=PARAM)
            if isinstance(constraint, ToolCalls) and matcher.unenforced:
                self._check_strict(constraint)
            matcher.compute_mask()
        except InvalidRequest as error:
            return error
        return matcher

    def _check_strict(self, calls: ToolCalls) -> None:
        """Only some of the schemas in a grammar may be strict, so these are compiled on their own."""
        for schema in calls.strict:
            matcher = self._compile(JsonSchema(schema))
            if matcher.unenforced:
                raise InvalidSchema(f"tools: {_not_enforced(matcher)}", param=TOOLS)

    def _compile(self, constraint: Constraint | ToolCalls) -> Matcher:
        grammar, refusal = _grammar(constraint)
        if not isinstance(constraint, JsonObject):
            self._sandbox.start()  # it starts while the table is built
        tokenizer = self._table()
        if not isinstance(constraint, JsonObject) and (fault := self._sandbox.error(grammar)) is not None:
            raise refusal(one_line(fault))
        matcher = start_matcher(tokenizer, grammar)
        if matcher.is_error():
            raise refusal(one_line(matcher.get_error()))
        has_schema = isinstance(constraint, JsonSchema | ToolCalls)
        unenforced = unenforced_keywords(matcher.get_grammar_warnings()) if has_schema else ()
        return Matcher(matcher, self._vocabulary.size, refusal, unenforced)

    def _table(self) -> LLTokenizer:
        if self._tokenizer is None:
            ends = [self._vocabulary.eos, *sorted(self._vocabulary.end_tokens - {self._vocabulary.eos})]
            self._tokenizer = lltokenizer_from_vocab(
                self._vocabulary.handle, eos_token=[token for token in ends if token >= 0]
            )
        return self._tokenizer


def _not_enforced(matcher: Matcher) -> str:
    return f"strict: these keywords cannot be enforced: {', '.join(matcher.unenforced)}. Leave them out, or strict."


def _token_table(tokenizer: LLTokenizer) -> TokenTable:
    tokens = range(tokenizer.vocab_size)
    return TokenTable(
        tokens=[tokenizer.decode_bytes([token]) for token in tokens],
        special=[token for token in tokens if tokenizer.is_special_token(token)],
        eos=tokenizer.eos_tokens,
    )


def _grammar(constraint: Constraint | ToolCalls) -> tuple[str, Refusal]:
    """The constraint as llguidance's grammar, and the error that reports what is wrong with it."""
    match constraint:
        case JsonObject():
            return schema_grammar(ANY_OBJECT), _bad_schema
        case JsonSchema(schema):
            return schema_grammar(schema), _bad_schema
        case Regex(pattern):
            return LLMatcher.grammar_from_regex(_short(pattern, _bad_regex)), _bad_regex
        case Lark(text):
            return LLMatcher.grammar_from_lark(_short(text, _bad_grammar)), _bad_grammar
        case ToolCalls(text):
            return LLMatcher.grammar_from_lark(text), _bad_tools
        case Gbnf(text):
            return LLMatcher.grammar_from_lark(_lark(_short(text, _bad_grammar))), _bad_grammar
    raise AssertionError(constraint)


def _lark(text: str) -> str:
    try:
        return gbnf_to_lark(text)
    except GbnfError as error:
        raise _bad_grammar(str(error)) from None


def _short(text: str, refusal: Refusal) -> str:
    if len(text.encode()) > LONGEST_GRAMMAR:
        raise refusal(f"it is longer than {LONGEST_GRAMMAR} bytes")
    return text


def _bad_schema(reason: str) -> InvalidRequest:
    return InvalidSchema(f"The schema cannot be used: {reason}", param=PARAM)


def _bad_tools(reason: str) -> InvalidRequest:
    return InvalidSchema(f"tools: the schemas cannot be used: {reason}", param=TOOLS)


def _bad_regex(reason: str) -> InvalidRequest:
    return InvalidGrammar(f"The regular expression cannot be used: {reason}", param="regex")


def _bad_grammar(reason: str) -> InvalidRequest:
    return InvalidGrammar(f"The grammar cannot be used: {reason}", param="grammar")
