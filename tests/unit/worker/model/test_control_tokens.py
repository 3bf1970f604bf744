"""Control tokens in texts: where they are, and texts in which nothing is one."""

import pytest

from worker.engine.model.control_tokens import TAG, ControlToken, ControlTokens

TOKENS = ControlTokens(
    ControlToken(number, text, is_word=text == "<|word|>")
    for number, text in enumerate(["<|end|>", "<|endofturn|>", "<s>", "]~b]", "]~b[more", "PAD", "<|word|>", "|"])
)


def found(text: str) -> list[str]:
    marks = TOKENS.find(text)
    assert all(text[mark.start : mark.end] == mark.token.text for mark in marks)
    return [mark.token.text for mark in marks]


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("", []),
        ("a < b | c [1]", []),
        ("<|end|", []),
        ("<|end|><|endofturn|>x<s>", ["<|end|>", "<|endofturn|>", "<s>"]),
        ("<<|end|>>", ["<|end|>"]),
        ("]~b]~b[more", ["]~b[more"]),  # of those that overlap the longest, as in llama.cpp
        ("]~b]~b]", ["]~b]"]),
        ("aPADb", ["PAD"]),
    ],
)
def test_marks_are_found_in_their_order(text: str, marks: list[str]) -> None:
    assert found(text) == marks


def test_a_text_is_split_at_its_marks() -> None:
    assert TOKENS.pieces("<s>a<|end|>b") == [2, "a", 0, "b"]
    assert TOKENS.pieces("<s><s>") == [2, 2]
    assert TOKENS.pieces("ab") == ["ab"]
    assert TOKENS.pieces("") == []


def test_a_plain_text_is_cut_only_within_what_is_always_recognised() -> None:
    assert TOKENS.plain("a<|end|>b<s>") == ["a<|end|>b<s>"]
    assert TOKENS.plain("a<|word|>b<|word|>") == ["a<", "|word|>b<", "|word|>"]
    assert TOKENS.plain("") == []


def test_a_vocabulary_without_control_tokens_has_no_marks() -> None:
    none = ControlTokens([])
    assert none.find("<|end|> a") == []
    assert none.pieces("<|end|>") == none.plain("<|end|>") == ["<|end|>"]


@pytest.mark.parametrize("tag", ["<|im_end|>", "<|tool>", "<tool|>", "<｜User｜>", '<|"|>'])
def test_tags_with_bars_are_marks(tag: str) -> None:
    assert TAG.fullmatch(tag)


@pytest.mark.parametrize("word", ["<think>", "<table>", "|>", "<|", "   ", "|x|", "[INST]"])
def test_other_words_are_words(word: str) -> None:
    assert word == "<|" or not TAG.fullmatch(word)
