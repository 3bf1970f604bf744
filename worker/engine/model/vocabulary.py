"""The model's vocabulary: text to tokens, tokens to bytes. Read-only, so any thread may use it."""

import codecs
import ctypes
from collections.abc import Iterable, Set
from functools import cached_property

from llama_cpp import llama_cpp as ll

from atelier.errors import InvalidRequest
from worker.engine.model.control_tokens import TAG, ControlToken, ControlTokens, Pieces

PIECE_BYTES = 256  # most pieces have a few bytes; longer ones take a second call
IGNORED_IN_PLAIN = ll.LLAMA_TOKEN_ATTR_CONTROL | ll.LLAMA_TOKEN_ATTR_UNKNOWN  # llama.cpp's special tokens
SPACE = " \t\n\v\f\r"  # llama.cpp's, beside tokens that drop it


class Vocabulary:
    def __init__(self, model: ll.llama_model_p) -> None:
        self.handle = ll.llama_model_get_vocab(model)
        self.size: int = ll.llama_vocab_n_tokens(self.handle)
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool, read_special: bool = True) -> list[int]:
        """Token ids. `read_special`: special tokens written out in the text are recognised."""
        return self._tokenize(text, add_special=add_special, read_special=read_special)

    def tokenize_plain(self, text: str) -> list[int]:
        """Token ids without any special token, even if the text contains one's name."""
        return self._tokenize(text, add_special=False, read_special=False)

    def continuation(self, text: str) -> list[int]:
        """Token ids that add exactly this text to another; none where the tokenizer puts a space before it."""
        tokens = self.tokenize_plain(text)
        return tokens if b"".join(map(self.mark, tokens)) == text.encode() else []

    def tokenize_pieces(self, pieces: Pieces, *, add_special: bool) -> list[int]:
        """Token ids of plain texts and, between them, control tokens by id: as of the whole, were they recognised."""
        begin, end = self.borders if add_special else (None, None)
        tokens = [begin] if begin is not None else []
        for before, piece, after in zip([None, *pieces], pieces, [*pieces[1:], None], strict=False):
            if isinstance(piece, int):
                tokens.append(piece)
            else:
                text = self._stripped(piece, before, after)
                tokens += self._tokenize_continued(text) if isinstance(before, str) else self.tokenize_plain(text)
        return tokens if end is None else [*tokens, end]

    def _stripped(self, text: str, before: object, after: object) -> str:
        tokens = self.control_tokens.by_id
        if isinstance(before, int) and tokens[before].strips_after:
            text = text.lstrip(SPACE)
        return text.rstrip(SPACE) if isinstance(after, int) and tokens[after].strips_before else text

    def _tokenize_continued(self, text: str) -> list[int]:
        """Of a text in the middle of a line: SentencePiece would put a space before it."""
        lead = self.tokenize_plain("\n")
        tokens = self.tokenize_plain("\n" + text)
        return tokens[len(lead) :] if tokens[: len(lead)] == lead else self.tokenize_plain(text)

    def _tokenize(self, text: str, *, add_special: bool, read_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        while True:
            tokens = (ll.llama_token * room)()
            count: int = ll.llama_tokenize(self.handle, data, len(data), tokens, room, add_special, read_special)
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def check(self, tokens: list[int]) -> list[int]:
        """The tokens, if they are all in the vocabulary."""
        bad = next((token for token in tokens if not 0 <= token < self.size), None)
        if bad is not None:
            raise InvalidRequest(f"Token {bad} is not in the vocabulary of {self.size}.", param="prompt")
        return tokens

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; control tokens add none."""
        if (known := self._pieces.get(token)) is None:
            known = self._pieces[token] = self._read_piece(token, special=False)
        return known

    def mark(self, token: int) -> bytes:
        """The bytes that a token is written as, also for control tokens."""
        return self._read_piece(token, special=True)

    def marks_in(self, texts: Iterable[str]) -> frozenset[int]:
        """The control tokens that the texts are written with."""
        tokens = {token for text in texts for token in self._tokenize(text, add_special=False, read_special=True)}
        return frozenset(filter(self.is_control, tokens))

    def spell(self, text: str) -> list[str | int]:
        """The text, split at tokens that llguidance's grammars need as ids: control tokens and tags."""
        spelled: list[str | int] = []
        for token in self._tokenize(text, add_special=False, read_special=True):
            if self._is_tag(token):
                before, _, text = text.partition(self.mark(token).decode(errors="replace"))
                spelled += [before, token] if before else [token]
        return [*spelled, text] if text else spelled

    def _is_tag(self, token: int) -> bool:
        if self.is_control(token):
            return True
        written = self.mark(token)
        is_own = ll.llama_vocab_get_attr(self.handle, token) & ll.LLAMA_TOKEN_ATTR_USER_DEFINED
        return bool(is_own) and written.startswith(b"<") and written.endswith(b">")

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        room = PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = ll.llama_token_to_piece(self.handle, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    @property
    def kind(self) -> int:
        """The kind of tokenizer: enum llama_vocab_type."""
        return int(ll.llama_vocab_type(self.handle))

    @property
    def borders(self) -> tuple[int | None, int | None]:
        """The tokens that are added before and after every text; None for no token."""
        begins, ends = ll.llama_vocab_get_add_bos(self.handle), ll.llama_vocab_get_add_eos(self.handle)
        return ll.llama_vocab_bos(self.handle) if begins else None, self.eos if ends else None

    def text(self, token: int) -> bytes:
        """The token's text in the model's file."""
        return bytes(ll.llama_vocab_get_text(self.handle, token))

    def is_control(self, token: int) -> bool:
        """Whether a token has no text, as the borders of messages have none."""
        return bool(ll.llama_vocab_is_control(self.handle, token))

    @cached_property
    def control_tokens(self) -> ControlTokens:
        """All marks: what llama.cpp ignores in plain text, and tags with bars."""
        return ControlTokens(filter(None, map(self._control_token, range(self.size))))

    def _control_token(self, token: int) -> ControlToken | None:
        attributes = ll.llama_vocab_get_attr(self.handle, token)
        is_word = not attributes & IGNORED_IN_PLAIN
        if is_word and not attributes & ll.LLAMA_TOKEN_ATTR_USER_DEFINED:
            return None
        text = self.text(token).decode(errors="replace")
        if is_word and not TAG.fullmatch(text):
            return None
        strips = (bool(attributes & flag) for flag in (ll.LLAMA_TOKEN_ATTR_LSTRIP, ll.LLAMA_TOKEN_ATTR_RSTRIP))
        return ControlToken(token, text, is_word, *strips)

    def is_end(self, token: int) -> bool:
        return bool(ll.llama_vocab_is_eog(self.handle, token))

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a completion: end of sequence, of turn, of message."""
        return frozenset(t for t in range(self.size) if ll.llama_vocab_is_eog(self.handle, t))

    @cached_property
    def longest_piece(self) -> int:
        """Bytes of the longest token."""
        return max(len(self._read_piece(token, special=True)) for token in range(self.size))

    @cached_property
    def suppressed_tokens(self) -> list[int]:
        """Tokens that must not be generated, by the model's file."""
        count = ctypes.c_int32()
        tokens = ll.llama_vocab_get_suppress_tokens(self.handle, ctypes.byref(count))
        return list(tokens[: count.value]) if tokens else []

    @cached_property
    def bos_text(self) -> str:
        return self._special_text(ll.llama_vocab_bos(self.handle))

    @cached_property
    def eos_text(self) -> str:
        return self._special_text(ll.llama_vocab_eos(self.handle))

    @property
    def infill_tokens(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, a suffix and the middle; None for models without them."""
        tokens = (
            ll.llama_vocab_fim_pre(self.handle),
            ll.llama_vocab_fim_suf(self.handle),
            ll.llama_vocab_fim_mid(self.handle),
        )
        return None if min(tokens) < 0 else tokens

    @property
    def bos(self) -> int:
        """The token that texts begin with; negative if there is none."""
        return int(ll.llama_vocab_bos(self.handle))

    @property
    def eos(self) -> int:
        return int(ll.llama_vocab_eos(self.handle))

    def _special_text(self, token: int) -> str:
        return "" if token < 0 else self._read_piece(token, special=True).decode(errors="replace")


class Detokenizer:
    """Turns the tokens of one sequence into text as they arrive.

    A code point that is split over tokens is emitted whole. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, vocabulary: Vocabulary, marks: Set[int] = frozenset()) -> None:
        """`marks`: the control tokens that are written as text. Other control tokens are omitted."""
        self._vocabulary = vocabulary
        self._marks = marks
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is complete now; empty while a code point lacks bytes."""
        return self._decoder.decode(self._read(token))

    def lacking(self, token: int) -> int:
        """How many bytes the last code point would lack after this token."""
        return lacking_bytes(self._decoder.getstate()[0] + self._read(token))

    def _read(self, token: int) -> bytes:
        read = self._vocabulary.mark if token in self._marks else self._vocabulary.piece
        return read(token)

    def flush(self) -> str:
        """What remains at the end of the sequence."""
        return self._decoder.decode(b"", final=True)


def lacking_bytes(text: bytes) -> int:
    """How many bytes the last UTF-8 code point of a text lacks."""
    for back, byte in enumerate(reversed(text[-3:]), 1):
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return max(0, length - back)
        if byte < 0x80:
            return 0
    return 0
