"""Models in Anthropic's form, and their list in pages. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal

from typing_extensions import TypedDict

from atelier.errors import InvalidRequest
from gateway.dialects.reply import rfc3339
from gateway.fleet.snapshot import Model

MOST_LISTED = 1000


class AnthropicModel(TypedDict):
    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int
    max_tokens: int


class AnthropicModelList(TypedDict):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


def model_object(name: str, model: Model) -> AnthropicModel:
    return {
        "type": "model",
        "id": name,
        "display_name": model.display_name or name,
        "created_at": rfc3339(int(model.imported_at), "seconds"),
        "lifecycle": "active",
        "max_input_tokens": model.max_context_length,
        "max_tokens": model.max_context_length,
    }


def model_page(entries: Sequence[AnthropicModel], query: Mapping[str, str]) -> AnthropicModelList:
    """The page that `limit`, `after_id` and `before_id` select. Raises InvalidRequest."""
    limit = page_limit(query.get("limit"))
    ids = [entry["id"] for entry in entries]
    start = place(ids, query["after_id"], "after_id") + 1 if "after_id" in query else 0
    end = place(ids, query["before_id"], "before_id") if "before_id" in query else len(entries)
    backwards = "before_id" in query and "after_id" not in query
    page = entries[start:end][-limit:] if backwards else entries[start:end][:limit]
    return {
        "data": list(page),
        "has_more": len(page) < len(entries[start:end]),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def page_limit(value: str | None) -> int:
    if value is None:
        return MOST_LISTED
    if not (value.isascii() and value.isdecimal() and 1 <= int(value[:5]) <= MOST_LISTED):
        raise InvalidRequest(f"limit: must be between 1 and {MOST_LISTED}", param="limit")
    return int(value)


def place(ids: Sequence[str], id: str, name: str) -> int:
    if id not in ids:
        raise InvalidRequest(f'{name}: unknown model "{id[:200]}"', param=name)
    return ids.index(id)
