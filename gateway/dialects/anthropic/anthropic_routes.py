"""Anthropic's routes: parse, one call, render."""

from collections.abc import Sequence
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.events import Completion
from gateway.core.inference import InferenceCore, RunningAnswer
from gateway.core.unary import Unary
from gateway.dialects.anthropic.anthropic_calls import count_call, messages_call
from gateway.dialects.anthropic.anthropic_model_list import model_object, model_page
from gateway.dialects.anthropic.anthropic_replies import MessageEvent, SaidMessage, TokenCount, whole_message
from gateway.dialects.anthropic.anthropic_requests import CountTokensBody, MessagesBody
from gateway.dialects.anthropic.anthropic_stream import MessageRenderer
from gateway.dialects.body import read_body
from gateway.dialects.error_formats import speaks_anthropic
from gateway.dialects.reply import account_of, json_response, origin_of, stream_answer, whole_answer
from gateway.dialects.route import HI, INFERENCE, MODEL, Endpoint, Route
from gateway.fleet.catalogue import Catalogue
from gateway.http.streaming import while_connected


class AnthropicRoutes:
    tag: ClassVar[str] = "Anthropic"

    def __init__(self, inference: InferenceCore, unary: Unary, catalogue: Catalogue) -> None:
        self._inference = inference
        self._unary = unary
        self._catalogue = catalogue

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /v1/messages",
                self.messages,
                "Answer a chat (Anthropic)",
                body=MessagesBody,
                request={"model": MODEL, "messages": HI, "max_tokens": 32},
                errors=INFERENCE,
                reply=SaidMessage,
                events=MessageEvent,
            ),
            Route(
                "POST /v1/messages/count_tokens",
                self.count_tokens,
                "Count the tokens of a chat (Anthropic)",
                body=CountTokensBody,
                request={"model": MODEL, "messages": HI},
                errors=INFERENCE,
                reply=TokenCount,
            ),
        )

    async def messages(self, request: Request) -> Response:
        body = await read_body(request, MessagesBody)
        call = messages_call(body)
        show_thinking = body.thinking is None or body.thinking.display != "omitted"

        def renderer(generation: RunningAnswer) -> MessageRenderer:
            return MessageRenderer(generation, show_thinking=show_thinking)

        def whole(generation: RunningAnswer, completions: Sequence[Completion]) -> SaidMessage:
            return whole_message(generation, completions[0], show_thinking=show_thinking)

        if body.stream:
            return await stream_answer(request, self._inference, call, renderer)
        return await whole_answer(request, self._inference, call, whole)

    async def count_tokens(self, request: Request) -> Response:
        body = await read_body(request, CountTokensBody)
        async with while_connected(request.receive):
            count = await self._unary.count_tokens(count_call(body), origin_of(request), account_of(request))
            reply: TokenCount = {"input_tokens": count}
            return json_response(reply)

    async def list_models(self, request: Request) -> Response:
        entries = [model_object(*entry) for entry in self._catalogue.served()]
        return json_response(model_page(entries, request.query_params))

    async def get_model(self, request: Request) -> Response:
        return json_response(model_object(*self._catalogue.find(request.path_params["id"])))


def by_client(anthropic: Endpoint, others: Endpoint) -> Endpoint:
    """The endpoint of a path that Anthropic's clients and others share."""

    async def endpoint(request: Request) -> Response:
        return await (anthropic if speaks_anthropic(request.scope) else others)(request)

    return endpoint
