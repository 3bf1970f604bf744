"""LM Studio's v1 chat as a stream: its events in their order, from the load to the result."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.types import Scope, Send

from atelier.errors import AtelierError
from atelier.generation_types import Statistics
from atelier.json_types import Json
from gateway.core.answer import Answering
from gateway.core.events import (
    Delta,
    Elicited,
    Event,
    Finished,
    HostedCallBegun,
    HostedCallEnded,
    HostedCallRuns,
    PromptProgress,
    Reasoning,
    ToolCallDelta,
)
from gateway.core.hosted_tool import HostedTool
from gateway.core.load_progress import Loading
from gateway.dialects.event_stream import EventStream, send_part
from gateway.dialects.lmstudio.lmstudio_chat import chat_result, chat_stats
from gateway.dialects.lmstudio.lmstudio_chat_output import (
    ChatOutput,
    arguments_object,
    elicited,
    failure,
    started,
    success,
    unknown_tool,
)
from gateway.http.server_sent_events import named_frame

Keep = Callable[[Sequence[Json]], Awaitable[str | None]]
"""Keeps the messages of an answer; the id of the response."""


def event_frame(kind: str, **more: Any) -> bytes:
    return named_frame(kind, orjson.dumps({"type": kind, **more}))


class ChatRenderer:
    """One stream's events, and what they come to.

    prompt_processing ends with the prompt, or with the first word at the latest. Reasoning and message
    begin with their first word and end with the first that is none of theirs. Only the first step of an answer
    that calls tools tells of its prompt.
    """

    def __init__(self, generation: Answering) -> None:
        self.response_id: str | None = None
        self._generation = generation
        self._instance_id = ""
        self._prompt_done: float | None = 0.0  # the share; None: it has been told that it ended
        self._open: str | None = None  # "reasoning" or "message"
        self._output = ChatOutput()
        self._called: dict[int, HostedTool] = {}

    @property
    def messages(self) -> list[Json]:
        """To be kept."""
        return self._output.messages(sees=self._generation.plan.model.made_for_vision)

    def starting(self, instance_id: str) -> bytes:
        self._instance_id = instance_id
        return event_frame("chat.start", model_instance_id=instance_id)

    def opening(self) -> bytes:
        return event_frame("prompt_processing.start")

    def event(self, event: Event) -> bytes:
        self._output.take(event)
        match event:
            case Reasoning(_, text):
                return self._word("reasoning", text)
            case Delta(_, text):
                return self._word("message", text)
            case PromptProgress():
                return self._progress(event.done_tokens / max(event.prompt_tokens, 1))
            case HostedCallBegun(_, number, _, tool):
                self._called[number] = tool
                return self._end_prompt() + self._close() + event_frame("tool_call.start", **started(tool))
            case HostedCallRuns(_, number, arguments):
                told = {**started(self._called[number]), "arguments": arguments_object(arguments)}
                return event_frame("tool_call.arguments", **told)
            case Elicited():
                return event_frame("tool_call.elicitation", **elicited(event))
            case HostedCallEnded():
                return self._call_end(event)
            case ToolCallDelta(_, piece) if piece.name:
                return self._end_prompt() + self._close() + event_frame("tool_call.failure", **unknown_tool(piece.name))
            case Finished():
                return self._end_prompt() + self._close()
        return b""

    def closing(self, generation: Answering) -> bytes:
        return event_frame("chat.end", result=self._result(generation.instance.id, generation.ends[0].statistics))

    def broken_off(self) -> bytes:
        """The end after an error, with what there was until then: a part that is open does not end."""
        figures = Statistics(
            prompt_tokens=self._generation.prompt_tokens, predicted_tokens=self._generation.generated_tokens
        )
        return event_frame("chat.end", result=self._result(self._instance_id, figures))

    def _result(self, instance_id: str, figures: Statistics) -> Json:
        stats = chat_stats(figures, self._generation.load_seconds)
        return chat_result(instance_id, self._output.whole_items(), stats, self.response_id)

    def _call_end(self, ended: HostedCallEnded) -> bytes:
        if ended.output is None:
            return event_frame("tool_call.failure", **failure(ended))
        return event_frame("tool_call.success", **success(ended, ended.output))

    def _word(self, kind: str, text: str) -> bytes:
        begun = b"" if self._open == kind else self._begin(kind)
        return begun + event_frame(f"{kind}.delta", content=text)

    def _begin(self, kind: str) -> bytes:
        before = self._end_prompt() + self._close()
        self._open = kind
        return before + event_frame(f"{kind}.start")

    def _close(self) -> bytes:
        kind, self._open = self._open, None
        return event_frame(f"{kind}.end") if kind else b""

    def _progress(self, share: float) -> bytes:
        """Only what has grown: another worker may have begun again with the prompt."""
        if self._prompt_done is None or share <= self._prompt_done:
            return b""
        self._prompt_done = share
        told = event_frame("prompt_processing.progress", progress=share)
        return told + self._end_prompt() if share >= 1 else told

    def _end_prompt(self) -> bytes:
        if self._prompt_done is None:
            return b""
        self._prompt_done = None
        return event_frame("prompt_processing.end")


class ChatStream(EventStream):
    """Begins with the load where there is one, so that the client hears of it, and keeps the answer before it ends.

    Without a load the generation has begun: what a worker refuses is no stream.
    """

    def __init__(
        self,
        generation: Answering,
        headers: Mapping[str, str],
        instance_id: str,
        loading: Loading | None,
        keep: Keep | None,
    ) -> None:
        self._chat = ChatRenderer(generation)
        super().__init__(generation, self._chat, headers)
        self._instance_id = instance_id
        self._loading = loading
        self._keep = keep

    def _close(self) -> None:
        super()._close()
        if self._loading is not None:
            self._loading.close()

    async def _open(self, send: Send) -> None:
        await send_part(send, self._chat.starting(self._instance_id))
        if self._loading is not None:
            await self._load(self._loading, send)
            await self._generation.begin()
        await super()._open(send)

    async def _load(self, loading: Loading, send: Send) -> None:
        which = {"model_instance_id": self._instance_id}
        await send_part(send, event_frame("model_load.start", **which))
        async for progress in loading.progress():
            await send_part(send, event_frame("model_load.progress", **which, progress=progress))
        seconds = self._generation.load_seconds
        await send_part(send, event_frame("model_load.end", **which, load_time_seconds=seconds))

    async def _end(self) -> bytes:
        if self._keep is not None:
            self._chat.response_id = await self._keep(self._chat.messages)
        return await super()._end()

    def _failed(self, scope: Scope, error: AtelierError) -> bytes:
        return super()._failed(scope, error) + self._chat.broken_off()
