"""Untrusted text for a terminal."""

import unicodedata


def printable(text: str) -> str:
    """The text without control characters, which could control the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))
