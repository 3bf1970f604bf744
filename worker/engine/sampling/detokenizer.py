"""Tokens to text as they come: a code point split over tokens comes out whole."""

import codecs
from collections.abc import Set

from worker.engine.model.vocabulary import Vocabulary


class Detokenizer:
    """Of one sequence. Bytes that are not UTF-8 come out as U+FFFD."""

    def __init__(self, vocabulary: Vocabulary, marks: Set[int] = frozenset()) -> None:
        """`marks`: control tokens whose text is wanted; of others there is none."""
        self._vocabulary = vocabulary
        self._marks = marks
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is whole now; empty while a code point is open."""
        read = self._vocabulary.mark if token in self._marks else self._vocabulary.piece
        return self._decoder.decode(read(token))

    def flush(self) -> str:
        """What remains, once it is known that no more bytes come."""
        return self._decoder.decode(b"", final=True)
