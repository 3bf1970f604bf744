"""When reasoning ends, and with which tokens. A token is a byte, or one of a few marks."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from atelier.errors import InvalidRequest
from worker.engine.model.vocabulary import Detokenizer, Vocabulary
from worker.engine.sampling.reasoning_budget import ReasoningBudget, ReasoningLimit, Reopening, limit_reasoning
from worker.output.family_format import ReasoningMarks
from worker.output.family_table import FORMATS
from worker.output.parser_choice import ParserChoice
from worker.output.reasoning_section import ReasoningCounter, ReasoningSection

THINK = ParserChoice(reasoning=ReasoningMarks("<think>", "</think>"), opened="<think>")


class Bytes:
    """`marks`: texts that are one token each, from 256 on. `spaced`: a text is tokenised with a space before it."""

    def __init__(self, *marks: str, spaced: bool = False, unknown: str = "") -> None:
        self._marks = [mark.encode() for mark in marks]
        self._spaced, self._unknown = spaced, unknown

    def tokenize(self, text: str, *, add_special: bool, read_special: bool = True) -> list[int]:
        rest, tokens = (" " if self._spaced else "").encode() + text.replace(self._unknown or "\0", "").encode(), []
        while rest:
            found = [mark for mark in self._marks if read_special and rest.startswith(mark)]
            tokens.append(256 + self._marks.index(found[0]) if found else rest[0])
            rest = rest[len(found[0]) if found else 1 :]
        return tokens

    def tokenize_plain(self, text: str) -> list[int]:
        return self.tokenize(text, add_special=False, read_special=False)

    def mark(self, token: int) -> bytes:
        return self._marks[token - 256] if token >= 256 else bytes([token])

    piece = mark
    continuation = Vocabulary.continuation


class Reasoning:
    """A completion that the prompt begins with reasoning."""

    def __init__(self, budget: int, *, message: str = "", vocabulary: Bytes | None = None) -> None:
        words: Any = vocabulary or Bytes()
        self.parser, section = THINK.create_parser(), THINK.reasoning_section
        assert section is not None
        self.counter = ReasoningCounter(section.ends, inside=self.parser.in_reasoning)
        self.budget = ReasoningBudget(limit_reasoning(budget, section, message, words), self.counter, words)
        self.tokens: list[int] = []
        self._detokenizer = Detokenizer(words)

    def write(self, written: Sequence[int]) -> bytes:
        """Write a model's tokens, and what is forced; returns the text."""
        for token in written:
            while (forced := self.budget.next_forced()) is not None:
                self._add(forced)
            if self.budget.ends_before(self._detokenizer.lacking(token)):
                continue
            self._add(token)
        while (forced := self.budget.next_forced()) is not None:
            self._add(forced)
        return bytes(self.tokens)

    def _add(self, token: int) -> None:
        self.tokens.append(token)
        text = self._detokenizer.push(token)
        self.parser.push(text)
        self.counter.add(text, inside=self.parser.in_reasoning)


def test_the_end_mark_follows_the_budget() -> None:
    for budget in range(8):
        reasoning = Reasoning(budget)
        assert reasoning.write(b"abcdefghij") == b"abcdefghij"[:budget] + b"</think>" + b"abcdefghij"[budget:]
        assert reasoning.counter.tokens == budget


def test_an_end_mark_that_is_begun_is_completed() -> None:
    """Where the model is writing it itself, in several tokens, as the budget ends."""
    for budget in (4, 5, 8):
        reasoning = Reasoning(budget)
        assert reasoning.write(b"abc</think"[:budget]).rstrip() == b"abc</think>"
        assert reasoning.counter.tokens == 3


def test_a_tokenizer_that_puts_a_space_before_a_text_writes_the_whole_mark() -> None:
    reasoning = Reasoning(5, vocabulary=Bytes(spaced=True))
    assert reasoning.write(b"abc</") == b"abc</ </think>"
    assert reasoning.counter.tokens <= 6


def test_no_character_is_cut() -> None:
    text = "aé日🎉b".encode()
    expected = {1: "a", 2: "a", 3: "aé", 4: "aé", 5: "aé", 6: "aé日", 9: "aé日", 10: "aé日🎉", 11: "aé日🎉b"}
    for budget, kept in expected.items():
        reasoning = Reasoning(budget)
        written = reasoning.write(text)
        assert written.split(b"</think>")[0].decode() == kept, budget
        assert reasoning.counter.tokens <= budget


def test_a_message_is_written_where_the_budget_has_room_for_it() -> None:
    assert Reasoning(9, message=" Enough.").write(b"abcdefghij")[:17] == b"a Enough.</think>"
    assert Reasoning(8, message=" Enough.").write(b"abcdefghij")[:16] == b"abcdefgh</think>"


def test_a_vocabulary_without_the_mark_is_an_error() -> None:
    section, words = ReasoningSection("◁think▷", "◁/think▷", ("◁/think▷",)), cast(Vocabulary, Bytes(unknown="◁"))
    with pytest.raises(InvalidRequest, match="◁/think▷") as error:
        limit_reasoning(5, section, "", words)
    assert error.value.param == "reasoning_budget"


HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "analysis", "final", "commentary")


@pytest.mark.parametrize(
    ("parsed", "marks", "reopening"),
    [
        (THINK, ("<think>",), Reopening((), 256)),
        (THINK, (), None),
        (ParserChoice(FORMATS["harmony"]), HARMONY, Reopening((256,), 260)),
    ],
)
def test_the_token_that_begins_reasoning_again_is_known(
    parsed: ParserChoice, marks: Sequence[str], reopening: Reopening | None
) -> None:
    section = parsed.reasoning_section
    assert section is not None
    assert limit_reasoning(5, section, "", cast(Vocabulary, Bytes(*marks))).reopening == reopening


def test_reasoning_is_forbidden_again_once_its_budget_is_spent() -> None:
    counter = ReasoningCounter(["<|end|>"], inside=False)
    limit = ReasoningLimit(2, "<|end|>", [7], reopening=Reopening((5,), 6))
    budget = ReasoningBudget(limit, counter, cast(Vocabulary, Bytes()))
    assert budget.forbidden([5]) is None, "nothing is spent yet"
    counter.add("<|message|>", inside=True)
    counter.add("a", inside=True)
    assert budget.next_forced() is None
    counter.add("b", inside=True)
    assert budget.next_forced() == 7
    counter.add("<|end|>", inside=False)
    assert budget.next_forced() is None
    assert (budget.forbidden([1, 5]), budget.forbidden([5, 1]), budget.forbidden([])) == (6, None, None)
