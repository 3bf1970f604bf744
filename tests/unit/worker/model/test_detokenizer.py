"""Tokens to text."""

from typing import cast

from worker.engine.model.vocabulary import Detokenizer, Vocabulary


class Bytes:
    """A vocabulary whose tokens are single bytes."""

    def piece(self, token: int) -> bytes:
        return bytes([token])


def detokenizer() -> Detokenizer:
    return Detokenizer(cast(Vocabulary, Bytes()))


def test_a_code_point_split_over_tokens_is_emitted_whole() -> None:
    text = detokenizer()
    pieces = [text.push(byte) for byte in "é🎉日".encode()]
    assert [piece for piece in pieces if piece] == ["é", "🎉", "日"]


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    text = detokenizer()
    assert text.push(0xFF) + text.push(0x41) == "\ufffdA"


def test_an_incomplete_code_point_is_emitted_at_the_end() -> None:
    text = detokenizer()
    assert text.push(0xE2) == ""
    assert text.flush() == "\ufffd"


class Marked(Bytes):
    """Tokens from 128 on are control tokens."""

    def piece(self, token: int) -> bytes:
        return b"" if token >= 128 else bytes([token])

    def mark(self, token: int) -> bytes:
        return b"<%d>" % token


def test_only_selected_control_tokens_have_a_text() -> None:
    text = Detokenizer(cast(Vocabulary, Marked()), frozenset([129]))
    assert [text.push(token) for token in (65, 128, 129, 66)] == ["A", "", "<129>", "B"]
