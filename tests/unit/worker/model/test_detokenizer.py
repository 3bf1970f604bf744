"""Tokens to text."""

from typing import cast

from worker.engine.model.vocabulary import Detokenizer, Vocabulary, lacking_bytes


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


def test_how_much_a_code_point_lacks_is_known() -> None:
    for written in ("é", "日", "🎉"):
        encoded = written.encode()
        for length in range(len(encoded) + 1):
            lacking = len(encoded) - length if length else 0
            assert lacking_bytes(b"a" + encoded[:length]) == lacking
    assert lacking_bytes(b"\x80\x80\x80\x80") == 0
    text = detokenizer()
    text.push(0xF0)
    assert (text.lacking(0x9F), text.lacking(0x41)) == (2, 0)
    assert text.push(0x9F) == "", "asking changes nothing"


class Marked(Bytes):
    """Tokens from 128 on are control tokens."""

    def piece(self, token: int) -> bytes:
        return b"" if token >= 128 else bytes([token])

    def mark(self, token: int) -> bytes:
        return b"<%d>" % token


def test_only_selected_control_tokens_have_a_text() -> None:
    text = Detokenizer(cast(Vocabulary, Marked()), frozenset([129]))
    assert [text.push(token) for token in (65, 128, 129, 66)] == ["A", "", "<129>", "B"]
