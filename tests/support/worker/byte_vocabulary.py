"""A vocabulary of the 256 bytes and an end, for grammars without a model."""

from collections.abc import Sequence

from llguidance import LLTokenizer, TokenizerWrapper

END = 256
SIZE = 257
TOKENS = [*(bytes([value]) for value in range(256)), b"<end>"]


class _Bytes:
    bos_token_id = None

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = tokens
        self.eos_token_id = len(tokens) - 1
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: bytes) -> Sequence[int]:
        return list(text)


def byte_tokenizer(tokens: list[bytes] = TOKENS) -> LLTokenizer:
    """Text is split into bytes, even if there are longer tokens; the last token is the end."""
    return LLTokenizer(TokenizerWrapper(_Bytes(tokens)))
