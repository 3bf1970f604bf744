"""Which tokens of a completion are reasoning, by their text."""

import pytest

from atelier.submission import Tool, Tools
from worker.output.family_format import ReasoningMarks
from worker.output.family_table import FORMATS
from worker.output.parser_choice import ParserChoice
from worker.output.reasoning_section import ReasoningCounter

THINK = ReasoningMarks("<think>", "</think>")
MARKED = ParserChoice(FORMATS["hermes"], THINK)
OPENED = ParserChoice(FORMATS["hermes"], THINK, opened="<think>")
HARMONY = ParserChoice(FORMATS["harmony"])
ANALYSIS = ["<|channel|>", "analysis", "<|message|>"]
DSML = ParserChoice(FORMATS["deepseek-v4"], THINK, Tools([Tool("now")]), opened="<think>")


def counted(parsed: ParserChoice, *tokens: str) -> list[int]:
    """The count after each token."""
    parser, section = parsed.create_parser(), parsed.reasoning_section
    assert section is not None
    counter = ReasoningCounter(section.ends, inside=parser.in_reasoning)
    counts = []
    for token in tokens:
        parser.push(token)
        counter.add(token, inside=parser.in_reasoning)
        counts.append(counter.tokens)
    return counts


@pytest.mark.parametrize(
    ("parsed", "tokens", "counts"),
    [
        (MARKED, ["<think>", "\n", "Hm", ".", "</think>", "\n\n", "Yes"], [0, 1, 2, 3, 3, 3, 3]),
        (OPENED, ["Hm", ".", "\n", "</think>", "Yes"], [1, 2, 3, 3, 3]),
        (OPENED, ["</think>", "Yes"], [0, 0]),
        (MARKED, ["Yes", "<think>", "No"], [0, 0, 0]),
        # A mark of several tokens, which count until it is complete.
        (MARKED, ["<", "think", ">", "Hm", "</", "think", ">", "Yes"], [0, 0, 0, 1, 2, 3, 1, 1]),
        (OPENED, ["a", "</", "b", "</", "th", "ink>", "c"], [1, 2, 3, 4, 5, 3, 3]),
        (OPENED, ["a.</", "think", ">", "b"], [1, 2, 1, 1]),
        # A part of a character has no text; so may the mark's first tokens.
        (OPENED, ["", "é", "</think>"], [1, 2, 2]),
        # Several sections, one after the other or in messages.
        (MARKED, ["<think>", "a", "</think>", "\n", "<think>", "b", "</think>", "c"], [0, 1, 1, 1, 1, 2, 2, 2]),
        (
            HARMONY,
            ["<|channel|>", "analysis", "<|message|>", "a", "b", "<|end|>", "<|start|>", "assistant"],
            [0, 0, 0, 1, 2, 2, 2, 2],
        ),
        (HARMONY, ["<|channel|>", "final", "<|message|>", "a"], [0, 0, 0, 0]),
        (
            HARMONY,
            [*ANALYSIS, "a", "<|end|>", "<|start|>", "assistant", *ANALYSIS, "b", "<|end|>"],
            [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2],
        ),
        # A call may end it.
        (DSML, ["a", "<｜DSML｜", "tool", "_calls", ">", "\n"], [1, 2, 3, 4, 1, 1]),
    ],
)
def test_the_tokens_between_the_marks_count(parsed: ParserChoice, tokens: list[str], counts: list[int]) -> None:
    assert counted(parsed, *tokens) == counts


def test_what_is_written_of_an_end_mark_is_known() -> None:
    counter = ReasoningCounter(["</think>", "<calls>"], inside=True)
    for text, written in (("a", 0), (" <", 1), ("/th", 4), ("x", 0), ("<c", 0)):
        counter.add(text, inside=True)
        assert counter.written_of("</think>") == written


def test_a_section_says_what_ends_it() -> None:
    marked, harmony, dsml = MARKED.reasoning_section, HARMONY.reasoning_section, DSML.reasoning_section
    assert marked is not None
    assert (marked.start, marked.closing, marked.ends) == ("<think>", "</think>", ("</think>",))
    assert harmony is not None
    assert harmony.closing == "<|end|><|start|>assistant"
    assert "<|channel|>final<|message|>" in harmony.others
    assert dsml is not None
    assert len(dsml.ends) == 2
    assert ParserChoice(FORMATS["hermes"]).reasoning_section is None
