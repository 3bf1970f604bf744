"""LM Studio's v1 chat: parse, one call, render."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from gateway.answer import account_of, answer_headers, json_response, origin_of, owner_of
from gateway.call import Call
from gateway.disconnect import while_connected
from gateway.inference import Inference
from gateway.lmstudio.chat import chat_result, chat_stats, output_items, v1_chat_call
from gateway.lmstudio.chat_stream import ChatStream, Keep
from gateway.lmstudio.conversation import Conversations, Turn, asked, chat_messages
from gateway.lmstudio.schema import V1ChatBody
from gateway.loading import Loading
from gateway.parsing import read_body
from gateway.watcher import Watcher


class LMStudioChatRoutes:
    def __init__(self, inference: Inference, watcher: Watcher, conversations: Conversations) -> None:
        self._inference = inference
        self._watcher = watcher
        self._conversations = conversations

    async def chat(self, request: Request) -> Response:
        body = await read_body(request, V1ChatBody)
        turn = asked(body)
        async with while_connected(request.receive):
            before = await self._conversations.before(body.previous_response_id, owner_of(request))
            call = v1_chat_call(body, chat_messages([*before, turn]))
            keep = None if body.store is False else partial(self._keep, request, body, turn)
            if body.stream:
                return await self._stream(request, call, keep)
            return await self._whole(request, call, keep)

    async def _whole(self, request: Request, call: Call, keep: Keep | None) -> Response:
        generation = await self._inference.start(call, origin_of(request), account_of(request))
        try:
            (completion,) = await generation.collect()
            response_id = await keep(completion.reasoning, completion.text) if keep else None
            stats = chat_stats(completion.finished.statistics, generation.load_seconds)
            output = output_items(completion.reasoning, completion.text)
            result = chat_result(generation.instance.id, output, stats, response_id)
            return json_response(result, answer_headers(request, generation))
        finally:
            generation.close()

    async def _stream(self, request: Request, call: Call, keep: Keep | None) -> Response:
        """A stream once a worker has accepted the request, or once its model is on its way."""
        generation = await self._inference.admit(call, origin_of(request), account_of(request))
        loading = None
        try:
            if generation.must_load():
                loading = Loading(generation, self._watcher)
                instance_id = await loading.begun()
            else:
                await generation.begin()
                instance_id = generation.instance.id
            return ChatStream(generation, answer_headers(request, generation), instance_id, loading, keep)
        except BaseException:
            if loading is not None:
                loading.close()
            generation.close()
            raise

    async def _keep(self, request: Request, body: V1ChatBody, turn: Turn, reasoning: str, text: str) -> str | None:
        answered = turn.answered(reasoning, text)
        return await self._conversations.keep(answered, body.previous_response_id, owner_of(request))
