"""Text of others, on its way to a terminal."""

import unicodedata


def printable(text: str) -> str:
    """Without the control characters by which a text could steer the terminal."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))
