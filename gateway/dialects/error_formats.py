"""The format of a request's errors, by its dialect."""

from starlette.types import Scope

from gateway.dialects.anthropic import anthropic_replies as anthropic
from gateway.dialects.lmstudio import lmstudio_chat_replies as lmstudio
from gateway.dialects.mcp import mcp_errors as mcp
from gateway.dialects.ollama import ollama_replies as ollama
from gateway.http.error_responses import DEFAULT_FORM, ErrorForm

# By the first matching path prefix; every other path has OpenAI's format.
BY_PATH: dict[str, ErrorForm] = {
    "/v1/messages": anthropic.FORM,
    "/api/v0": DEFAULT_FORM,
    "/api/v1": lmstudio.FORM,
    "/api": ollama.FORM,
    "/mcp": mcp.FORM,
}
FORMS = {form.name: form for form in (DEFAULT_FORM, *BY_PATH.values())}


def forms_of_path(path: str) -> tuple[ErrorForm, ...]:
    """The formats that clients may receive: two on the model paths, which OpenAI's and Anthropic's clients share."""
    own = _own_form(path) or DEFAULT_FORM
    return (own, anthropic.FORM) if path.startswith("/v1/models") else (own,)


def form_of(scope: Scope) -> ErrorForm:
    """On shared paths the client's headers decide."""
    return _own_form(scope["path"]) or (anthropic.FORM if speaks_anthropic(scope) else DEFAULT_FORM)


def speaks_anthropic(scope: Scope) -> bool:
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def _own_form(path: str) -> ErrorForm | None:
    return next((form for start, form in BY_PATH.items() if path == start or path.startswith(f"{start}/")), None)
