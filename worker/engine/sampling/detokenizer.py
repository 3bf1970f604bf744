"""Turns tokens into text as they arrive. A code point that is split over tokens is emitted whole."""

import codecs
from collections.abc import Set

from worker.engine.model.vocabulary import Vocabulary


class Detokenizer:
    """The text of one sequence. Bytes that are not UTF-8 become U+FFFD."""

    def __init__(self, vocabulary: Vocabulary, marks: Set[int] = frozenset()) -> None:
        """`marks`: the control tokens that are written as text. Other control tokens are omitted."""
        self._vocabulary = vocabulary
        self._marks = marks
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is complete now; empty while a code point lacks bytes."""
        read = self._vocabulary.mark if token in self._marks else self._vocabulary.piece
        return self._decoder.decode(read(token))

    def flush(self) -> str:
        """What remains at the end of the sequence."""
        return self._decoder.decode(b"", final=True)
