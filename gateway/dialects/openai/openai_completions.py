"""Chat and text completions in OpenAI's form, for its own routes and for LM Studio's v0."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from atelier.json_types import Json
from gateway.core.events import Completion, Finished
from gateway.core.inference import Answering, Inference
from gateway.dialects.openai.hosted_chat import HostedChat
from gateway.dialects.openai.openai_calls import (
    called_by_older_form,
    chat_call,
    completion_call,
    echoes,
    uses_servers,
    wants_usage,
)
from gateway.dialects.openai.openai_logprobs import best_choices
from gateway.dialects.openai.openai_replies import chat_choices, text_choices, usage
from gateway.dialects.openai.openai_requests import ChatBody, CompletionBody
from gateway.dialects.openai.openai_stream import ChunkRenderer, chat_head, chat_renderer, text_head, text_renderer
from gateway.dialects.reply import stream_answer, whole_answer

EndFacts = Callable[[Answering, Finished], Mapping[str, object]]
"""The fields that a dialect adds to the last chunk of a choice, or to a whole reply."""


def no_facts(answer: Answering, finished: Finished) -> Mapping[str, object]:
    return {}


class Completions:
    def __init__(self, inference: Inference, hosted: HostedChat) -> None:
        self._inference = inference
        self._hosted = hosted

    async def chat(self, request: Request, body: ChatBody, end_facts: EndFacts = no_facts) -> Response:
        if uses_servers(body):
            return await self._hosted.answer(request, body, end_facts)
        call, older_calls = chat_call(body), called_by_older_form(body)

        def renderer(generation: Answering) -> ChunkRenderer:
            return chat_renderer(
                chat_head(generation.plan.name, stream=True),
                generation.plan.choices,
                include_usage=wants_usage(body),
                at_end=lambda finished: end_facts(generation, finished),
                older_calls=older_calls,
            )

        def whole(generation: Answering, completions: list[Completion]) -> Json:
            choices = chat_choices(completions, older_calls=older_calls)
            facts = end_facts(generation, completions[0].finished)
            return chat_head(generation.plan.name, stream=False).with_choices(choices, usage=usage(generation), **facts)

        if body.stream:
            return await stream_answer(request, self._inference, call, renderer)
        return await whole_answer(request, self._inference, call, whole)

    async def text(self, request: Request, body: CompletionBody, end_facts: EndFacts = no_facts) -> Response:
        call = completion_call(body)
        openings = echoes(body, call)

        def renderer(generation: Answering) -> ChunkRenderer:
            return text_renderer(
                text_head(generation.plan.name),
                generation.plan.choices,
                include_usage=wants_usage(body),
                openings=openings,
                at_end=lambda finished: end_facts(generation, finished),
            )

        def whole(generation: Answering, completions: list[Completion]) -> Json:
            choices = text_choices(best_choices(body, completions), openings)
            facts = end_facts(generation, completions[0].finished)
            return text_head(generation.plan.name).with_choices(choices, usage=usage(generation), **facts)

        if body.stream:
            return await stream_answer(request, self._inference, call, renderer)
        return await whole_answer(request, self._inference, call, whole)
