"""The user's answer to what an MCP server asks: parse, one call, render."""

from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.core.question import MOST_FIELDS, Answer
from gateway.dialects.body import read_body
from gateway.dialects.body_base import Body
from gateway.dialects.reply import json_response, owner_of
from gateway.tools.elicitation.open_questions import Questions


class ElicitationBody(Body):
    action: Literal["accept", "decline", "cancel"]
    content: dict[str, Any] | None = Field(
        None, max_length=MOST_FIELDS, description="As requested_schema says; of a question that is accepted."
    )


class ElicitationRoutes:
    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def answer(self, request: Request) -> Response:
        body = await read_body(request, ElicitationBody)
        id = request.path_params["id"]
        await self._questions.answer(id, owner_of(request), Answer(body.action, body.content))
        return json_response({"id": id, "action": body.action})
