"""Log-probabilities in OpenAI's two forms."""

import codecs
from collections.abc import Sequence

from atelier.json_types import Json
from gateway.core.events import TokenLogprob

LEAST = -9999.0  # OpenAI's number for "hardly possible": JSON has no infinity


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> Json:
    content = [{**_entry(token), "top_logprobs": [_entry(each) for each in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _entry(token: TokenLogprob) -> Json:
    return {"token": text_of(token), "logprob": logprob_of(token), "bytes": list(token.piece)}


class TextLogprobs:
    """Of one choice of a text completion, piece by piece: the offsets go on."""

    def __init__(self) -> None:
        self._offset = 0  # in the choice's text, in characters
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def render(self, tokens: Sequence[TokenLogprob]) -> Json:
        return {
            "tokens": [text_of(token) for token in tokens],
            "token_logprobs": [logprob_of(token) for token in tokens],
            "top_logprobs": [likeliest(token) for token in tokens],
            "text_offset": [self._place(token) for token in tokens],
        }

    def _place(self, token: TokenLogprob) -> int:
        """Where the token begins; within a code point, where that does."""
        offset = self._offset
        self._offset += len(self._decoder.decode(token.piece))
        return offset


def likeliest(token: TokenLogprob) -> dict[str, float] | None:
    """Of tokens with the same text, as parts of code points are, the likelier; the token itself is always there.

    None: of a prompt's first token.
    """
    values: dict[str, float] = {}
    for each in (*token.top, token):
        if (value := logprob_of(each)) is None:
            return None
        values.setdefault(text_of(each), value)
    return values


def text_of(token: TokenLogprob) -> str:
    return token.piece.decode(errors="replace")


def logprob_of(token: TokenLogprob) -> float | None:
    return None if token.logprob is None else max(token.logprob, LEAST)
