"""Constrained decoding: llguidance decides which tokens may come next, over llama.cpp's logits."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab
from llguidance.numpy import allocate_token_bitmask
from numpy.typing import NDArray

from atelier.errors import InvalidGrammar, InvalidRequest, InvalidSchema
from atelier.submission import Constraint, Gbnf, JsonObject, JsonSchema, Lark, Regex
from worker.engine.constraint.gbnf_parser import GbnfError
from worker.engine.constraint.gbnf_to_lark import gbnf_to_lark
from worker.engine.constraint.json_schema import PARAM, one_line, schema_grammar, unenforced_keywords
from worker.engine.constraint.sandboxed_compile import GrammarTrial, Pieces, start_matcher
from worker.engine.constraint.tool_constraint import TOOLS, ToolCalls
from worker.engine.model.vocabulary import Vocabulary

LONGEST_GRAMMAR = 2**16  # bytes
KEPT = 16  # constraints that need not be compiled again
MOST_FORCED = 24  # tokens: with the sampled one they fit into the smallest batch
ANY_OBJECT = '{"type": "object"}'

Refusal = Callable[[str], InvalidRequest]


class Matcher:
    """Where one sequence stands in its grammar.

    A mask is computed once for each place: ahead of the logits if somebody has the time.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary_size: int,
        refusal: Refusal,
        unenforced: tuple[str, ...] = (),
        forbidden: "NDArray[np.bool_] | None" = None,
    ) -> None:
        self.unenforced = unenforced  # keywords of the schema that the text may violate
        self._matcher = matcher
        self._size = vocabulary_size
        self._refusal = refusal
        self._bits = allocate_token_bitmask(1, vocabulary_size)
        self._address = self._bits.ctypes.data
        self._forbidden = forbidden  # of the place where it stands
        self._ahead: tuple[int, ...] = ()  # tokens that were found to be forced
        self._taken = 0  # of these

    def copy(self) -> "Matcher":
        copy = Matcher(self._matcher.deep_copy(), self._size, self._refusal, self.unenforced, self._forbidden)
        copy._ahead, copy._taken = self._ahead, self._taken
        return copy

    def compute_mask(self) -> None:
        """Find what may come next. Needs no logits, and leaves the interpreter's lock for most of its time."""
        if self._forbidden is not None:
            return
        if self._taken < len(self._ahead):
            self._forbidden = np.ones(self._size, np.bool_)
            self._forbidden[self._ahead[self._taken]] = False
            return
        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.nbytes)
        self._check()
        forbidden = np.unpackbits(~self._bits.view(np.uint8)[0], count=self._size, bitorder="little")
        self._forbidden = forbidden.view(np.bool_)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Forbid, in place, every token that may not come next."""
        self.compute_mask()
        assert self._forbidden is not None
        np.copyto(logits, np.float32(-np.inf), where=self._forbidden)

    mask = apply

    def forced(self) -> list[int]:
        """The tokens that must come next, in this order, the first few of them; they are not consumed."""
        if self._taken == len(self._ahead):  # it takes a tenth of a second for a text of 100,000 bytes
            self._ahead, self._taken = tuple(self._matcher.compute_ff_tokens()), 0
            self._check()
        return list(self._ahead[self._taken : self._taken + MOST_FORCED])

    def consume(self, token: int) -> bool:
        """Advance by a token; False when the text is complete."""
        return self.consume_all([token])

    def consume_all(self, tokens: Sequence[int]) -> bool:
        """Advance by tokens; False when the text is complete."""
        self._forbidden = None
        self._pass(tokens)
        if not self._matcher.consume_tokens(list(tokens)):
            self._check()
        return not self._matcher.is_stopped()

    def acceptable(self, tokens: Sequence[int]) -> int:
        """How many of these tokens could come next, one after the other; none is consumed."""
        count: int = self._matcher.validate_tokens(list(tokens))
        return count

    def rollback(self, tokens: int) -> None:
        """Take back the last tokens that were consumed."""
        self._forbidden = None
        self._ahead, self._taken = (), 0
        if not self._matcher.rollback(tokens):
            self._check()

    def _pass(self, tokens: Sequence[int]) -> None:
        """Keep what is known to be forced after these tokens."""
        end = self._taken + len(tokens)
        if self._ahead[self._taken : end] == tuple(tokens):
            self._taken = end
        else:
            self._ahead, self._taken = (), 0

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._refusal(f"The constraint failed: {one_line(self._matcher.get_error())}")


class ConstraintCompiler:
    """Compiles constraints for one vocabulary, one at a time. Its tables are built at the first use."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._trial = GrammarTrial(lambda: _pieces(self._table()))
        self._known: OrderedDict[Constraint | ToolCalls, Matcher | InvalidRequest] = OrderedDict()
        self._compiling = threading.Lock()

    def compile(self, constraint: Constraint | ToolCalls | None) -> Matcher | None:
        """A matcher at its start; InvalidSchema or InvalidGrammar when nothing could ever match."""
        if constraint is None:
            return None
        with self._compiling:
            outcome = self._known.get(constraint) or self._outcome(constraint)
            self._known[constraint] = outcome
            self._known.move_to_end(constraint)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        if isinstance(outcome, InvalidRequest):
            raise type(outcome)(outcome.message, param=outcome.param)
        return outcome.copy()

    def close(self) -> None:
        self._trial.close()

    def _outcome(self, constraint: Constraint | ToolCalls) -> Matcher | InvalidRequest:
        try:
            matcher = self._compile(constraint)
            if isinstance(constraint, JsonSchema) and constraint.strict and matcher.unenforced:
                named = ", ".join(matcher.unenforced)
                return InvalidSchema(f"Not enforced, which strict forbids: {named}. Leave it out.", param=PARAM)
            if isinstance(constraint, ToolCalls) and matcher.unenforced:
                self._check_strict(constraint)
            matcher.compute_mask()
        except InvalidRequest as error:
            return error
        return matcher

    def _check_strict(self, calls: ToolCalls) -> None:
        """Of the schemas in a grammar only some may be strict: those are compiled alone."""
        for schema in calls.strict:
            if named := ", ".join(self._compile(JsonSchema(schema)).unenforced):
                raise InvalidSchema(f"tools: not enforced, which strict forbids: {named}. Leave it out.", param=TOOLS)

    def _compile(self, constraint: Constraint | ToolCalls) -> Matcher:
        grammar, refusal = _grammar(constraint)
        if not isinstance(constraint, JsonObject):
            self._trial.start()  # beside the table
        tokenizer = self._table()
        if not isinstance(constraint, JsonObject) and (fault := self._trial.error(grammar)) is not None:
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


def _pieces(tokenizer: LLTokenizer) -> Pieces:
    tokens = range(tokenizer.vocab_size)
    return Pieces(
        tokens=[tokenizer.decode_bytes([token]) for token in tokens],
        special=[token for token in tokens if tokenizer.is_special_token(token)],
        eos=tokenizer.eos_tokens,
    )


def _grammar(constraint: Constraint | ToolCalls) -> tuple[str, Refusal]:
    """The constraint as a grammar of llguidance, and the error that says what is wrong with it."""
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
