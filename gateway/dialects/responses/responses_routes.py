"""The routes of OpenAI's responses."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, cast

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from atelier.errors import InvalidRequest, PreviousResponseNotFound, ResponseNotFound, UnsupportedField
from atelier.json_types import Json
from gateway.core.inference import RunningAnswer
from gateway.dialects.body import read_body
from gateway.dialects.reply import account_of, answer_headers, json_response, origin_of, owner_of
from gateway.dialects.responses.background_responses import Background
from gateway.dialects.responses.response_archive import Archive
from gateway.dialects.responses.response_creation import ResponseCreator
from gateway.dialects.responses.response_items import AnyItem
from gateway.dialects.responses.response_object import ResponseObject
from gateway.dialects.responses.response_turn import Turn
from gateway.dialects.responses.responses_requests import ResponseBody
from gateway.dialects.responses.responses_stream import ResponseEvent, ResponseStream, collected_response
from gateway.dialects.route import HOSTED, MODEL, Route
from gateway.http.streaming import while_connected

USUAL_LIMIT = 20
MOST = 100


class ItemList(TypedDict):
    object: Literal["list"]
    data: list[AnyItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ResponseRoutes:
    tag: ClassVar[str] = "OpenAI's responses"

    def __init__(self, creator: ResponseCreator, archive: Archive, background: Background) -> None:
        self._creator = creator
        self._archive = archive
        self._background = background

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /v1/responses",
                self.create,
                "Answer, and store the response (OpenAI)",
                body=ResponseBody,
                request={"model": MODEL, "input": "Hi"},
                errors=(*HOSTED, PreviousResponseNotFound),
                reply=ResponseObject,
                events=ResponseEvent,
            ),
            Route(
                "GET /v1/responses/{id}",
                self.get,
                "One stored response (OpenAI)",
                errors=(ResponseNotFound, InvalidRequest),
                query={"stream": {"const": "false"}},
                reply=ResponseObject,
            ),
            Route(
                "DELETE /v1/responses/{id}",
                self.delete,
                "Delete a stored response (OpenAI)",
                errors=(ResponseNotFound,),
                reply=DeletedResponse,
            ),
            Route(
                "GET /v1/responses/{id}/input_items",
                self.input_items,
                "List the items that a response answered (OpenAI)",
                errors=(ResponseNotFound, InvalidRequest),
                query={
                    "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL_LIMIT},
                    "order": {"enum": ["asc", "desc"], "default": "desc"},
                    "after": {"type": "string", "description": "Id of the item before the first one to return."},
                },
                reply=ItemList,
            ),
            Route(
                "POST /v1/responses/{id}/cancel",
                self.cancel,
                "Cancel a response in the background (OpenAI)",
                errors=(InvalidRequest, ResponseNotFound),
                reply=ResponseObject,
            ),
        )

    async def create(self, request: Request) -> Response:
        body = await read_body(request, ResponseBody)
        async with while_connected(request.receive):
            turn = await self._creator.turn(body, owner_of(request))
            if body.background:
                return json_response(await self._background.start(turn, origin_of(request)))
            answer = await self._creator.start(turn, origin_of(request), account_of(request), whole=not body.stream)
            if body.stream:
                return ResponseStream(turn, answer, self._archive, answer_headers(request, answer))
            return await self._whole(request, turn, answer)

    async def _whole(self, request: Request, turn: Turn, answer: RunningAnswer) -> Response:
        try:
            response = collected_response(turn, answer, await answer.events())
            return json_response(await self._archive.keep(turn, response), answer_headers(request, answer))
        finally:
            answer.close()

    async def get(self, request: Request) -> Response:
        if request.query_params.get("stream") == "true":
            raise UnsupportedField("stream: not supported for stored responses; omit it.", param="stream")
        return json_response(await self._background.look(request.path_params["id"], owner_of(request)))

    async def delete(self, request: Request) -> Response:
        id = request.path_params["id"]
        await self._background.delete(id, owner_of(request))
        return json_response({"id": id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        return json_response(await self._background.cancel(request.path_params["id"], owner_of(request)))

    async def input_items(self, request: Request) -> Response:
        items = await self._archive.input_of(request.path_params["id"], owner_of(request))
        return json_response(page(items, request.query_params))


def page(items: Sequence[Json], query: Mapping[str, str]) -> ItemList:
    """A page of the list. `items`: all, the oldest first. `query`: limit, order and after. Raises InvalidRequest."""
    limit, order = _limit(query.get("limit")), query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest('order: must be "asc" or "desc"', param="order")
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = _start(ordered, query.get("after"))
    shown = ordered[start : start + limit]
    return {
        "object": "list",
        "data": cast(list[AnyItem], shown),
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
    raise InvalidRequest(f'after: the list has no item "{after[:100]}"', param="after")
