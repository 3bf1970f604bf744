"""Tokens as llama.cpp's server tells them, to the core's calls and back. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atelier.errors import InvalidRequest
from gateway.core.call import TokenizeCall, TokenList
from gateway.dialects.openai.openai_requests import TokenizeBody


def tokenize_call(body: TokenizeBody) -> TokenizeCall:
    return TokenizeCall(
        model=body.model,
        text=body.content,
        add_special=bool(body.add_special),
        parse_special=body.parse_special is not False,
    )


def token_list(tokens: TokenList, *, with_pieces: bool) -> dict[str, Any]:
    if not with_pieces:
        return {"tokens": list(tokens.ids)}
    pairs = zip(tokens.ids, tokens.pieces, strict=True)
    return {"tokens": [{"id": id, "piece": piece_text(piece)} for id, piece in pairs]}


def piece_text(piece: bytes) -> str | list[int]:
    """Bytes, where they are no text by themselves."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


@contextmanager
def told_about(field: str) -> Iterator[None]:
    """Errors by this dialect's name of the field: a worker knows of prompts alone."""
    try:
        yield
    except InvalidRequest as error:
        if error.param not in ("prompt", "messages"):
            raise
        raise type(error)(error.message, param=field) from None
