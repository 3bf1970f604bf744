"""Tokens to text as they come: a code point split over tokens comes out whole."""

import codecs

from worker.engine.vocabulary import Vocabulary


class Detokenizer:
    """Of one sequence. Bytes that are not UTF-8 come out as U+FFFD."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is whole now; empty while a code point is open."""
        return self._decoder.decode(self._vocabulary.piece(token))

    def flush(self) -> str:
        """What remains, once it is known that no more bytes come."""
        return self._decoder.decode(b"", final=True)
