"""Chat and text completions in OpenAI's format, for its own routes and for LM Studio's v0."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.generation_types import Finished
from atelier.json_types import Json
from gateway.core.events import Completion, CompletionDraft
from gateway.core.inference import InferenceCore, RunningAnswer, begun
from gateway.core.mcp_server_config import NEVER
from gateway.dialects.openai.mcp_tool import requested_server, server_entries
from gateway.dialects.openai.openai_calls import (
    chat_call,
    completion_call,
    constraint,
    echoes,
    own_functions,
    uses_older_calls,
    uses_servers,
    wants_usage,
)
from gateway.dialects.openai.openai_logprobs import best_choices
from gateway.dialects.openai.openai_replies import chat_choices, hosted_calls, text_choices, usage
from gateway.dialects.openai.openai_requests import ChatBody, CompletionBody
from gateway.dialects.openai.openai_stream import ChunkRenderer, chat_head, chat_renderer, text_head, text_renderer
from gateway.dialects.reply import (
    EventStream,
    account_of,
    answer_headers,
    json_response,
    origin_of,
    owner_of,
    stream_answer,
    whole_answer,
)
from gateway.http.streaming import while_connected
from gateway.tools.elicitation import OpenQuestions, Respondent
from gateway.tools.loop.server_selection import RequestedServer
from gateway.tools.loop.tool_host import ToolHost
from gateway.tools.loop.tool_loop import ToolLoop

EndFacts = Callable[[RunningAnswer, Finished], Mapping[str, object]]
"""The fields that a dialect adds to the last chunk of a choice, or to a whole reply."""


def no_facts(answer: RunningAnswer, finished: Finished) -> Mapping[str, object]:
    return {}


class HostedChat:
    """Chat completions whose model may call tools of MCP servers."""

    def __init__(self, host: ToolHost, questions: OpenQuestions) -> None:
        self._host = host
        self._questions = questions

    async def answer(self, request: Request, body: ChatBody, end_facts: EndFacts) -> Response:
        servers = requested_servers(body)
        if (body.n or 1) > 1:
            raise InvalidRequest("n: must be 1 with tools of type mcp", param="n")
        async with while_connected(request.receive):
            taken = [tool.name for tool in own_functions(body)]
            toolset = await self._host.toolset(servers, owner_of(request), taken=taken)
            asks = body.elicitation and body.stream  # a whole reply comes too late to carry a question
            loop = await self._host.admit(
                chat_call(body, toolset),
                toolset,
                origin_of(request),
                account_of(request),
                constraint=constraint(body),
                respondent=Respondent(self._questions, owner_of(request)) if asks else None,
                whole=not body.stream,
            )
            await begun(loop)
            if not body.stream:
                return await self._whole(request, loop, end_facts)
            head = chat_head(loop, stream=True)
            renderer = chat_renderer(
                head, 1, include_usage=wants_usage(body), at_end=lambda finished: end_facts(loop, finished)
            )
            return EventStream(loop, renderer, answer_headers(request, loop))

    async def _whole(self, request: Request, loop: ToolLoop, end_facts: EndFacts) -> Response:
        try:
            draft, events = CompletionDraft(), await loop.events()
            for event in events:
                draft.add(event)
            wanted = loop.plan.call.logprobs is not None
            [choice] = chat_choices([draft.completion(loop.ends[0], logprobs=wanted)])
            choice["message"]["mcp_calls"] = hosted_calls(events)
            head = chat_head(loop, stream=False)
            reply = head.with_choices([choice], usage=usage(loop), **end_facts(loop, loop.ends[0]))
            return json_response(reply, answer_headers(request, loop))
        finally:
            loop.close()


class Completions:
    """Chat and text completions, whole or streamed."""

    def __init__(self, inference: InferenceCore, hosted: HostedChat) -> None:
        self._inference = inference
        self._hosted = hosted

    async def chat(self, request: Request, body: ChatBody, end_facts: EndFacts = no_facts) -> Response:
        if uses_servers(body):
            return await self._hosted.answer(request, body, end_facts)
        call, older_calls = chat_call(body), uses_older_calls(body)

        def renderer(generation: RunningAnswer) -> ChunkRenderer:
            return chat_renderer(
                chat_head(generation, stream=True),
                generation.plan.choices,
                include_usage=wants_usage(body),
                at_end=lambda finished: end_facts(generation, finished),
                older_calls=older_calls,
            )

        def whole(generation: RunningAnswer, completions: list[Completion]) -> Json:
            choices = chat_choices(completions, older_calls=older_calls)
            facts = end_facts(generation, completions[0].finished)
            return chat_head(generation, stream=False).with_choices(choices, usage=usage(generation), **facts)

        if body.stream:
            return await stream_answer(request, self._inference, call, renderer)
        return await whole_answer(request, self._inference, call, whole)

    async def text(self, request: Request, body: CompletionBody, end_facts: EndFacts = no_facts) -> Response:
        call = completion_call(body)
        openings = echoes(body, call)

        def renderer(generation: RunningAnswer) -> ChunkRenderer:
            return text_renderer(
                text_head(generation),
                generation.plan.choices,
                include_usage=wants_usage(body),
                openings=openings,
                at_end=lambda finished: end_facts(generation, finished),
            )

        def whole(generation: RunningAnswer, completions: list[Completion]) -> Json:
            choices = text_choices(best_choices(body, completions), openings)
            facts = end_facts(generation, completions[0].finished)
            return text_head(generation).with_choices(choices, usage=usage(generation), **facts)

        if body.stream:
            return await stream_answer(request, self._inference, call, renderer)
        return await whole_answer(request, self._inference, call, whole)


def requested_servers(body: ChatBody) -> list[RequestedServer]:
    """Raises UnsupportedField if a call would have to wait for approval, which chat completions have no way to give."""
    servers = [requested_server(entry, path) for path, entry in server_entries(body.tools)]
    for server in servers:
        if server.approval != NEVER:
            param = f"{server.path}.require_approval"
            raise UnsupportedField(
                f'{param}: must be "never" in chat completions; /v1/responses supports approval', param=param
            )
    return servers
