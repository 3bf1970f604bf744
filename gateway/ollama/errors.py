"""Errors as Ollama's clients read them: one sentence."""

import orjson

from atelier.errors import AtelierError

OTHERS = ("/api/v0/", "/api/v1/")  # LM Studio's and our own, beside Ollama's below /api/


def is_ollama(path: str) -> bool:
    """Whether who asks for this path expects Ollama's form, be there such a route or not."""
    return path.startswith("/api/") and not path.startswith(OTHERS)


def ollama_error(error: AtelierError) -> bytes:
    return orjson.dumps({"error": error.message})
