"""Log-probabilities in OpenAI's two formats, and the completions that are likeliest by them. Pure."""

import codecs
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NotRequired

from typing_extensions import TypedDict

from gateway.core.events import Completion, TokenLogprob
from gateway.dialects.openai.openai_calls import tried
from gateway.dialects.openai.openai_requests import CompletionBody
from gateway.dialects.route import Nullable

LEAST = -9999.0  # OpenAI's value for a token that is next to impossible: JSON has no infinity


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    """Of a token: the natural logarithm of its probability before penalties, constraints and temperature."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[Logprob]
    refusal: NotRequired[Nullable[None]]


class TextLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    content: list[Logprob] = [
        {**_entry(token), "top_logprobs": [_entry(each) for each in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(token: TokenLogprob) -> TopLogprob:
    # Only the first token of an echoed prompt has no log-probability, and chats echo none.
    return {"token": text_of(token), "logprob": logprob_of(token) or 0.0, "bytes": list(token.piece)}


class TextLogprobsEncoder:
    """For one choice of a text completion, part by part; text offsets continue from the part before."""

    def __init__(self) -> None:
        self._offset = 0  # in the choice's text, in characters
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def render(self, tokens: Sequence[TokenLogprob]) -> TextLogprobs:
        return {
            "tokens": [text_of(token) for token in tokens],
            "token_logprobs": [logprob_of(token) for token in tokens],
            "top_logprobs": [likeliest(token) for token in tokens],
            "text_offset": [self._place(token) for token in tokens],
        }

    def _place(self, token: TokenLogprob) -> int:
        """Where the token begins; a token within a code point begins where the code point does."""
        offset = self._offset
        self._offset += len(self._decoder.decode(token.piece))
        return offset


def likeliest(token: TokenLogprob) -> dict[str, float] | None:
    """By text; always includes the token itself. None: of a prompt's first token.

    Tokens may share a text, such as parts of code points; the likeliest of these counts.
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


def best_choices(body: CompletionBody, completions: list[Completion]) -> list[Completion]:
    """For each prompt, the `n` completions with the highest mean log-probability, the best first."""
    wanted = body.n or 1
    if tried(body) == wanted:
        return completions
    groups = [completions[start : start + tried(body)] for start in range(0, len(completions), tried(body))]
    best = [each for group in groups for each in sorted(group, key=mean_logprob, reverse=True)[:wanted]]
    return best if body.logprobs is not None else [replace(each, logprobs=None) for each in best]


def mean_logprob(completion: Completion) -> float:
    """Of the generated tokens, without those of an echoed prompt; -inf if there are none."""
    count = completion.finished.statistics.predicted_tokens
    if not count or not completion.logprobs:
        return -math.inf
    return sum(token.logprob or 0.0 for token in completion.logprobs[-count:]) / count
