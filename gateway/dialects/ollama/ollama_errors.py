"""Errors as Ollama's clients read them: one sentence."""

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.http.error_responses import ErrorForm

SCHEMA: Json = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def error_body(error: AtelierError, request_id: str) -> Json:
    """The request's id is in the headers alone."""
    return {"error": error.message}


def error_line(body: bytes) -> bytes:
    return body + b"\n"


FORM = ErrorForm(error_body, error_line, "OllamaError", SCHEMA)
