"""A page of a list, as OpenAI's cursors have it. Pure."""

from collections.abc import Mapping, Sequence

from atelier.errors import InvalidRequest
from atelier.json_types import Json

USUAL_LIMIT = 20
MOST = 100


def page(items: Sequence[Json], query: Mapping[str, str]) -> Json:
    """`items`: all, the oldest first. `query`: limit, order (desc unset), after. InvalidRequest names what is wrong."""
    limit, order = _limit(query.get("limit")), query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest('order: must be "asc" or "desc"', param="order")
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = _start(ordered, query.get("after"))
    shown = ordered[start : start + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + limit < len(ordered),
    }


def _limit(given: str | None) -> int:
    if given is None:
        return USUAL_LIMIT
    if not (given.isascii() and given.isdecimal() and len(given) <= 3 and 1 <= int(given) <= MOST):
        raise InvalidRequest(f"limit: must be from 1 to {MOST}", param="limit")
    return int(given)


def _start(ordered: Sequence[Json], after: str | None) -> int:
    if after is None:
        return 0
    for number, item in enumerate(ordered):
        if item["id"] == after:
            return number + 1
    raise InvalidRequest(f'after: there is no item "{after[:100]}" in the list', param="after")
