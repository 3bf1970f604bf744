"""A query and a document as one input, as rerankers are trained to read them.

As in llama.cpp's server: by the template "rerank" of the model's file, or else
BOS query EOS SEP document EOS, without the tokens that the vocabulary does not add.
"""

import re
from dataclasses import dataclass

from llama_cpp import llama_cpp as ll

from worker.engine.model.control_tokens import ControlTokens
from worker.engine.model.vocabulary import Vocabulary

NO_TOKEN = -1
PLACE = re.compile(r"\{(query|document)\}")


@dataclass(frozen=True, slots=True)
class Borders:
    """The special tokens of a pair: each a list of one token or none."""

    begin: list[int]
    end: list[int]
    separator: list[int]


class PairReader:
    """Read-only, so any thread may use it."""

    def __init__(self, vocabulary: Vocabulary, template: str | None) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._borders = read_borders(vocabulary)

    def tokens(self, query: str, document: str) -> list[int]:
        if self._template is not None:
            pieces = fill(self._template, query, document, self._vocabulary.control_tokens)
            return self._vocabulary.tokenize_pieces(pieces, add_special=False)
        borders = self._borders
        return [
            *borders.begin,
            *self._vocabulary.tokenize_plain(query),
            *borders.end,
            *borders.separator,
            *self._vocabulary.tokenize_plain(document),
            *borders.end,
        ]


def fill(template: str, query: str, document: str, known: ControlTokens) -> list[str | int]:
    """The template's texts and control tokens, and the pair as plain text among them.

    In one pass: a placeholder within a text is not replaced.
    """
    filled: list[str | int] = []
    for number, text in enumerate(PLACE.split(template)):
        own = known.pieces(text) if number % 2 == 0 else [query if text == "query" else document]
        for piece in own:
            last = filled[-1] if filled else None
            if isinstance(piece, str) and isinstance(last, str):
                filled[-1] = last + piece
            else:
                filled.append(piece)
    return [part for piece in filled for part in ([piece] if isinstance(piece, int) else known.plain(piece))]


def read_borders(vocabulary: Vocabulary) -> Borders:
    handle = vocabulary.handle
    separator = ll.llama_vocab_sep(handle)
    end = ll.llama_vocab_eos(handle)
    return Borders(
        begin=_known(ll.llama_vocab_bos(handle), wanted=ll.llama_vocab_get_add_bos(handle)),
        end=_known(separator if end == NO_TOKEN else end, wanted=ll.llama_vocab_get_add_eos(handle)),
        separator=_known(separator, wanted=ll.llama_vocab_get_add_sep(handle)),
    )


def _known(token: int, *, wanted: bool) -> list[int]:
    return [int(token)] if wanted and token != NO_TOKEN else []
