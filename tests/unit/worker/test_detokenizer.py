"""Tokens to text."""

from typing import cast

from worker.engine.detokenizer import Detokenizer
from worker.engine.vocabulary import Vocabulary


class Bytes:
    """A vocabulary whose tokens are single bytes."""

    def piece(self, token: int) -> bytes:
        return bytes([token])


def detokenizer() -> Detokenizer:
    return Detokenizer(cast(Vocabulary, Bytes()))


def test_a_code_point_split_over_tokens_comes_out_whole() -> None:
    text = detokenizer()
    pieces = [text.push(byte) for byte in "é🎉日".encode()]
    assert [piece for piece in pieces if piece] == ["é", "🎉", "日"]


def test_bytes_that_are_not_utf8_come_out_as_the_replacement_character() -> None:
    text = detokenizer()
    assert text.push(0xFF) + text.push(0x41) == "\ufffdA"


def test_an_open_code_point_comes_out_at_the_end() -> None:
    text = detokenizer()
    assert text.push(0xE2) == ""
    assert text.flush() == "\ufffd"
