"""The user's answer to what an MCP server asks: parse, one call, render."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import NotFound, PayloadTooLarge
from gateway.core.question import MOST_FIELDS, Answer
from gateway.dialects.body import Body, read_body
from gateway.dialects.native.mcp_server_reply_types import AnsweredElicitation
from gateway.dialects.reply import json_response, owner_of
from gateway.dialects.route import Route
from gateway.tools.elicitation import OpenQuestions


class ElicitationBody(Body):
    action: Literal["accept", "decline", "cancel"]
    content: dict[str, Any] | None = Field(
        None, max_length=MOST_FIELDS, description="As requested_schema says; of a question that is accepted."
    )


class ElicitationRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(self, questions: OpenQuestions) -> None:
        self._questions = questions

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /api/v1/mcp/elicitations/{id}",
                self.answer,
                "Answer what an MCP server asks the user",
                body=ElicitationBody,
                request={"action": "accept", "content": {"name": "Ada"}},
                errors=(NotFound, PayloadTooLarge),
                reply=AnsweredElicitation,
            ),
        )

    async def answer(self, request: Request) -> Response:
        body = await read_body(request, ElicitationBody)
        id = request.path_params["id"]
        await self._questions.answer(id, owner_of(request), Answer(body.action, body.content))
        return json_response({"id": id, "action": body.action})
