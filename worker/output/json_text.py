"""Validates JSON text as it arrives, so that it can be passed on at once."""

import json
import re

DEEPEST = 256  # levels
PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
SPACE = re.compile(r"[ \t\n\r]+")
WORD = re.compile(r"[-+.\w]+")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
LITERALS = ("true", "false", "null")
LONGEST_WORD = 400  # characters of a number
PARTNERS = {"}": "{", "]": "["}

# What the text may continue with.
VALUE, ITEM, MEMBER, KEY, COLON, NEXT, STRING, ESCAPE, HEX, IN_WORD = range(10)
# ITEM: a value or the list's end. MEMBER: a key or the object's end. NEXT: a comma, or the list's or object's end.


class JsonText:
    """One JSON value. It is `complete` after its last character, and `broken` at a character that JSON forbids there.

    Models write line breaks into strings without escaping them. They are passed on escaped.
    """

    def __init__(self) -> None:
        self.complete = False
        self.broken = False
        self._state = VALUE
        self._open: list[str] = []  # brackets that are not closed yet
        self._is_key = False  # the string that is being read
        self._digits = 0  # hexadecimal digits that an escape still lacks
        self._word = ""  # the number or literal that is being read

    def take(self, text: str, at: int) -> tuple[str, int]:
        """The part of the text from `at` on that belongs to the value, and the position after it."""
        taken: list[str] = []
        while at < len(text) and not self.complete and not self.broken:
            piece, end = self._string(text, at) if STRING <= self._state <= HEX else self._structure(text, at)
            taken.append(piece)
            at = end
        return "".join(taken), at

    def _string(self, text: str, at: int) -> tuple[str, int]:
        char = text[at]
        if self._state == ESCAPE:
            self._state, self._digits = (HEX, 4) if char == "u" else (STRING, 0)
            return self._accept(char, char in '"\\/bfnrtu', at)
        if self._state == HEX:
            self._digits -= 1
            self._state = HEX if self._digits else STRING
            return self._accept(char, char in "0123456789abcdefABCDEF", at)
        if plain := PLAIN.match(text, at):
            return plain.group(), plain.end()
        if char == '"':
            self._state = COLON if self._is_key else NEXT
            self._end_value()
        elif char == "\\":
            self._state = ESCAPE
        else:
            return json.dumps(char)[1:-1], at + 1
        return char, at + 1

    def _structure(self, text: str, at: int) -> tuple[str, int]:
        char = text[at]
        if word := WORD.match(text, at):
            return self._accept(word.group(), self._take_word(word.group()), at)
        if self._state == IN_WORD:
            self._end_word()
            return "", at
        if space := SPACE.match(text, at):
            return space.group(), space.end()
        return self._accept(char, self._take_punctuation(char), at)

    def _accept(self, piece: str, allowed: bool, at: int) -> tuple[str, int]:
        if allowed:
            return piece, at + len(piece)
        self.broken = True
        return "", at

    def _take_word(self, word: str) -> bool:
        if self._state not in (VALUE, ITEM, IN_WORD):
            return False
        self._state = IN_WORD
        self._word += word
        return len(self._word) <= LONGEST_WORD

    def _end_word(self) -> None:
        if self._word in LITERALS or NUMBER.fullmatch(self._word):
            self._word, self._state = "", NEXT
            self._end_value()
        else:
            self.broken = True

    def _take_punctuation(self, char: str) -> bool:
        state = self._state
        if char == '"' and state in (VALUE, ITEM, MEMBER, KEY):
            self._is_key = state in (MEMBER, KEY)
            self._state = STRING
        elif char in "{[" and state in (VALUE, ITEM) and len(self._open) < DEEPEST:
            self._open.append(char)
            self._state = MEMBER if char == "{" else ITEM
        elif char in PARTNERS and self._may_close(char):
            self._open.pop()
            self._state = NEXT
            self._end_value()
        elif char == "," and state == NEXT:
            self._state = KEY if self._open[-1] == "{" else VALUE
        elif char == ":" and state == COLON:
            self._state = VALUE
        else:
            return False
        return True

    def _may_close(self, char: str) -> bool:
        empty = MEMBER if char == "}" else ITEM
        return bool(self._open) and self._open[-1] == PARTNERS[char] and self._state in (NEXT, empty)

    def _end_value(self) -> None:
        self.complete = not self._open
