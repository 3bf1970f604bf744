"""Chat completions whose model may call tools of MCP servers: parse, one call, render."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import InvalidRequest, UnsupportedField
from gateway.core.events import CompletionDraft, Finished
from gateway.core.inference import begun
from gateway.core.mcp_server import NEVER
from gateway.dialects.event_stream import EventStream
from gateway.dialects.openai.mcp_tool import server_entries, server_wish
from gateway.dialects.openai.openai_calls import chat_call, constraint, own_functions, wants_usage
from gateway.dialects.openai.openai_replies import chat_choices, hosted_calls, usage
from gateway.dialects.openai.openai_requests import ChatBody
from gateway.dialects.openai.openai_stream import chat_head, chat_renderer
from gateway.dialects.reply import account_of, answer_headers, json_response, origin_of, owner_of
from gateway.http.disconnect import while_connected
from gateway.tools.elicitation import OpenQuestions, Respondent
from gateway.tools.loop.server_selection import RequestedServer
from gateway.tools.loop.tool_host import ToolHost
from gateway.tools.loop.tool_loop import ToolLoop

AtEnd = Callable[[ToolLoop, Finished], Mapping[str, object]]


class HostedChat:
    def __init__(self, host: ToolHost, questions: OpenQuestions) -> None:
        self._host = host
        self._questions = questions

    async def answer(self, request: Request, body: ChatBody, at_end: AtEnd) -> Response:
        """`at_end`: the fields that a dialect adds to the last chunk, or to the whole reply."""
        wishes = server_wishes(body)
        if (body.n or 1) > 1:
            raise InvalidRequest("n: must be 1 with tools of type mcp", param="n")
        async with while_connected(request.receive):
            taken = [tool.name for tool in own_functions(body)]
            toolset = await self._host.toolset(wishes, owner_of(request), taken=taken)
            asks = body.elicitation and body.stream  # who waits for a whole answer hears of no question
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
                return await self._whole(request, loop, at_end)
            head = chat_head(loop.plan.name, stream=True)
            renderer = chat_renderer(
                head, 1, include_usage=wants_usage(body), at_end=lambda finished: at_end(loop, finished)
            )
            return EventStream(loop, renderer, answer_headers(request, loop))

    async def _whole(self, request: Request, loop: ToolLoop, at_end: AtEnd) -> Response:
        try:
            draft, events = CompletionDraft(), await loop.events()
            for event in events:
                draft.add(event)
            wanted = loop.plan.call.logprobs is not None
            [choice] = chat_choices([draft.completion(loop.ends[0], logprobs=wanted)])
            choice["message"]["mcp_calls"] = hosted_calls(events)
            head = chat_head(loop.plan.name, stream=False)
            reply = head.with_choices([choice], usage=usage(loop), **at_end(loop, loop.ends[0]))
            return json_response(reply, answer_headers(request, loop))
        finally:
            loop.close()


def server_wishes(body: ChatBody) -> list[RequestedServer]:
    """UnsupportedField where a call would have to wait for consent, which there is no way to give here."""
    wishes = [server_wish(entry, path) for path, entry in server_entries(body.tools)]
    for wish in wishes:
        if wish.approval != NEVER:
            param = f"{wish.path}.require_approval"
            raise UnsupportedField(
                f'{param}: nobody can be asked in chat completions; "never", or use /v1/responses', param=param
            )
    return wishes
