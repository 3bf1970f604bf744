"""The routes of OpenAI's responses: parse, one call, render."""

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import UnsupportedField
from gateway.answer import account_of, answer_headers, json_response, origin_of, owner_of
from gateway.answering import Answering
from gateway.disconnect import while_connected
from gateway.parsing import read_body
from gateway.responses.answers import Answers
from gateway.responses.archive import Archive
from gateway.responses.background import Background
from gateway.responses.listing import page
from gateway.responses.objects import collected_response
from gateway.responses.schema import ResponseBody
from gateway.responses.stream import ResponseStream
from gateway.responses.turn import Turn


class ResponseRoutes:
    def __init__(self, answers: Answers, archive: Archive, background: Background) -> None:
        self._answers = answers
        self._archive = archive
        self._background = background

    async def create(self, request: Request) -> Response:
        body = await read_body(request, ResponseBody)
        async with while_connected(request.receive):
            turn = await self._answers.turn(body, owner_of(request))
            if body.background:
                return json_response(await self._background.start(turn, origin_of(request)))
            answer = await self._answers.start(turn, origin_of(request), account_of(request), whole=not body.stream)
            if body.stream:
                return ResponseStream(turn, answer, self._archive, answer_headers(request, answer))
            return await self._whole(request, turn, answer)

    async def _whole(self, request: Request, turn: Turn, answer: Answering) -> Response:
        try:
            response = collected_response(turn, answer, await answer.events())
            return json_response(await self._archive.keep(turn, response), answer_headers(request, answer))
        finally:
            answer.close()

    async def get(self, request: Request) -> Response:
        if request.query_params.get("stream") == "true":
            raise UnsupportedField("stream: a stored response comes in one piece; leave it out.", param="stream")
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
