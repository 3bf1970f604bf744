"""LM Studio's v1 chat: parse, one call, render."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from atelier.errors import ResponseNotFound
from atelier.json_types import Json
from gateway.core.call import Call
from gateway.core.inference import InferenceCore, RunningAnswer, begun
from gateway.core.load_progress import LoadProgress
from gateway.dialects.body import read_body
from gateway.dialects.lmstudio.lmstudio_chat import chat_tools, requested_servers, v1_chat_call
from gateway.dialects.lmstudio.lmstudio_chat_output import ChatOutput
from gateway.dialects.lmstudio.lmstudio_chat_replies import V1Chat, V1ChatEvent, chat_result, chat_stats
from gateway.dialects.lmstudio.lmstudio_chat_stream import ChatStream, Store
from gateway.dialects.lmstudio.lmstudio_requests import V1ChatBody
from gateway.dialects.lmstudio.stored_conversation import Conversations, StoredTurn, chat_messages, new_turn
from gateway.dialects.reply import account_of, answer_headers, json_response, origin_of, owner_of
from gateway.dialects.route import HOSTED, MODEL, Route
from gateway.fleet.watcher import Watcher
from gateway.http.streaming import while_connected
from gateway.tools.elicitation import OpenQuestions, Respondent
from gateway.tools.loop.tool_host import ToolHost
from gateway.tools.loop.toolset import Toolset


class LMStudioChatRoutes:
    tag: ClassVar[str] = "LM Studio"

    def __init__(
        self,
        inference: InferenceCore,
        host: ToolHost,
        watcher: Watcher,
        conversations: Conversations,
        questions: OpenQuestions,
    ) -> None:
        self._inference = inference
        self._host = host
        self._questions = questions
        self._watcher = watcher
        self._conversations = conversations

    def routes(self) -> Sequence[Route]:
        return (
            Route(
                "POST /api/v1/chat",
                self.chat,
                "Answer a chat that the server stores (LM Studio v1)",
                body=V1ChatBody,
                request={"model": MODEL, "input": "Hi"},
                errors=(*HOSTED, ResponseNotFound),
                reply=V1Chat,
                events=V1ChatEvent,
            ),
        )

    async def chat(self, request: Request) -> Response:
        body = await read_body(request, V1ChatBody)
        turn = new_turn(body)
        async with while_connected(request.receive):
            before = await self._conversations.before(body.previous_response_id, owner_of(request))
            messages = chat_messages([*before, turn])
            servers = requested_servers(body)
            toolset = await self._host.toolset(servers, owner_of(request)) if servers else None
            call = v1_chat_call(body, messages, chat_tools(body, toolset) if toolset else None)
            store = None if body.store is False else partial(self._store, request, body, turn)
            if body.stream:
                respondent = Respondent(self._questions, owner_of(request)) if body.elicitation else None
                return await self._stream(request, call, toolset, store, respondent)
            return await self._whole(request, call, toolset, store)

    async def _whole(self, request: Request, call: Call, toolset: Toolset | None, store: Store | None) -> Response:
        answer = await begun(await self._admit(request, call, toolset, whole=True))
        try:
            output = ChatOutput()
            for event in await answer.events():
                output.add(event)
            vision = answer.plan.model.made_for_vision
            response_id = await store(output.messages(vision=vision)) if store else None
            stats = chat_stats(answer.ends[0].statistics, answer.load_seconds)
            result = chat_result(answer.instance.id, output.whole_items(), stats, response_id)
            return json_response(result, answer_headers(request, answer))
        finally:
            answer.close()

    async def _stream(
        self, request: Request, call: Call, toolset: Toolset | None, store: Store | None, respondent: Respondent | None
    ) -> Response:
        """A stream, once a worker has accepted the request or an instance of its model is loading."""
        answer = await self._admit(request, call, toolset, respondent)
        loading = None
        try:
            if answer.must_load():
                loading = LoadProgress(answer, self._watcher)
                instance_id = await loading.begun()
            else:
                await answer.begin()
                instance_id = answer.instance.id
            return ChatStream(answer, answer_headers(request, answer), instance_id, loading, store)
        except BaseException:
            if loading is not None:
                loading.close()
            answer.close()
            raise

    async def _admit(
        self,
        request: Request,
        call: Call,
        toolset: Toolset | None,
        respondent: Respondent | None = None,
        *,
        whole: bool = False,
    ) -> RunningAnswer:
        """A generation that has not begun. The caller closes it."""
        origin, account = origin_of(request), account_of(request)
        if toolset is not None:
            return await self._host.admit(call, toolset, origin, account, respondent=respondent, whole=whole)
        return await self._inference.admit(call, origin, account)

    async def _store(
        self, request: Request, body: V1ChatBody, turn: StoredTurn, messages: Sequence[Json]
    ) -> str | None:
        answered = turn.answered(messages)
        return await self._conversations.store(answered, body.previous_response_id, owner_of(request))
