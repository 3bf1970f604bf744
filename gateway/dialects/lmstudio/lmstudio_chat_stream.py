"""The stream of LM Studio's v1 chat: its events in order, from the load to the result."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson
from starlette.types import Scope, Send

from atelier.errors import AtelierError
from atelier.generation_types import Finished, Statistics
from atelier.json_types import Json
from gateway.core.events import (
    Delta,
    Elicited,
    Event,
    HostedCallBegun,
    HostedCallEnded,
    HostedCallRuns,
    PromptProgress,
    Reasoning,
    ToolCallDelta,
)
from gateway.core.hosted_tool import HostedTool
from gateway.core.inference import RunningAnswer
from gateway.core.load_progress import LoadProgress
from gateway.dialects.lmstudio.lmstudio_chat_output import (
    ChatOutput,
    arguments_object,
    call_failure,
    call_result,
    called_tool,
    provider_info,
    unknown_tool,
)
from gateway.dialects.lmstudio.lmstudio_chat_replies import (
    ToolCallElicitation,
    V1Chat,
    V1ChatEvent,
    chat_result,
    chat_stats,
)
from gateway.dialects.reply import EventStream, around_text, send_part
from gateway.http.streaming import named_frame

Store = Callable[[Sequence[Json]], Awaitable[str | None]]
"""Stores the messages of a reply and returns the response's id."""


def event_frame(event: V1ChatEvent) -> bytes:
    return named_frame(event["type"], orjson.dumps(event))


@dataclass(frozen=True, slots=True)
class StreamPart:
    """Reasoning or message: its encoded events. `around_text`: the bytes of a delta before and after the text."""

    start: bytes
    around_text: tuple[bytes, bytes]
    end: bytes


def _part(
    start: Literal["reasoning.start", "message.start"],
    delta: Literal["reasoning.delta", "message.delta"],
    end: Literal["reasoning.end", "message.end"],
) -> StreamPart:
    around = around_text(lambda text: event_frame({"type": delta, "content": text}))
    return StreamPart(event_frame({"type": start}), around, event_frame({"type": end}))


REASONING = _part("reasoning.start", "reasoning.delta", "reasoning.end")
MESSAGE = _part("message.start", "message.delta", "message.end")
PROMPT_START = event_frame({"type": "prompt_processing.start"})
PROMPT_END = event_frame({"type": "prompt_processing.end"})


class ChatRenderer:
    """One stream's events, and its result.

    prompt_processing ends with the prompt, or at the latest with the first text. Reasoning and message start with
    their first text and end before the first event of another kind. Only the first step of a generation that calls
    tools has prompt_processing events.
    """

    def __init__(self, generation: RunningAnswer) -> None:
        self.response_id: str | None = None
        self._generation = generation
        self._instance_id = ""
        self._prompt_done: float | None = 0.0  # from 0 to 1; None: its end is sent
        self._open: StreamPart | None = None
        self._output = ChatOutput()
        self._called: dict[int, HostedTool] = {}

    @property
    def messages(self) -> list[Json]:
        """For the stored conversation."""
        return self._output.messages(vision=self._generation.plan.model.made_for_vision)

    def starting(self, instance_id: str) -> bytes:
        self._instance_id = instance_id
        return event_frame({"type": "chat.start", "model_instance_id": instance_id})

    def opening(self) -> bytes:
        return PROMPT_START

    def event(self, event: Event) -> bytes:
        self._output.add(event)
        match event:
            case Reasoning(_, text):
                return self._text(REASONING, text)
            case Delta(_, text):
                return self._text(MESSAGE, text)
            case PromptProgress():
                return self._progress(event.done_tokens / max(event.prompt_tokens, 1))
            case HostedCallBegun(_, number, _, tool):
                self._called[number] = tool
                return self._close() + event_frame({"type": "tool_call.start", **called_tool(tool)})
            case HostedCallRuns(_, number, arguments):
                tool = self._called[number]
                return event_frame(
                    {"type": "tool_call.arguments", **called_tool(tool), "arguments": arguments_object(arguments)}
                )
            case Elicited():
                return event_frame(elicitation_event(event))
            case HostedCallEnded():
                return self._call_end(event)
            case ToolCallDelta(_, piece) if piece.name:
                return self._close() + event_frame({"type": "tool_call.failure", **unknown_tool(piece.name)})
            case Finished():
                return self._close()
        return b""

    def closing(self, generation: RunningAnswer) -> bytes:
        result = self._result(generation.instance.id, generation.ends[0].statistics)
        return event_frame({"type": "chat.end", "result": result})

    def interrupted(self) -> bytes:
        """The end after an error, with the output until then. An open part has no end event."""
        figures = Statistics(
            prompt_tokens=self._generation.prompt_tokens, predicted_tokens=self._generation.generated_tokens
        )
        return event_frame({"type": "chat.end", "result": self._result(self._instance_id, figures)})

    def _result(self, instance_id: str, figures: Statistics) -> V1Chat:
        stats = chat_stats(figures, self._generation.load_seconds)
        return chat_result(instance_id, self._output.whole_items(), stats, self.response_id)

    def _call_end(self, ended: HostedCallEnded) -> bytes:
        if ended.output is None:
            return event_frame({"type": "tool_call.failure", **call_failure(ended)})
        return event_frame({"type": "tool_call.success", **call_result(ended, ended.output)})

    def _text(self, part: StreamPart, text: str) -> bytes:
        before, after = part.around_text
        delta = before + orjson.dumps(text) + after
        if self._open is part:
            return delta
        start = self._close() + part.start
        self._open = part
        return start + delta

    def _close(self) -> bytes:
        """End the prompt and the open part, if they have not ended."""
        part, self._open = self._open, None
        return self._end_prompt() + (part.end if part else b"")

    def _progress(self, share: float) -> bytes:
        """Progress never decreases, though another worker may have restarted the prompt."""
        if self._prompt_done is None or share <= self._prompt_done:
            return b""
        self._prompt_done = share
        progress = event_frame({"type": "prompt_processing.progress", "progress": share})
        return progress + self._end_prompt() if share >= 1 else progress

    def _end_prompt(self) -> bytes:
        if self._prompt_done is None:
            return b""
        self._prompt_done = None
        return PROMPT_END


def elicitation_event(event: Elicited) -> ToolCallElicitation:
    question = event.question
    elicitation: ToolCallElicitation = {
        "type": "tool_call.elicitation",
        "id": event.question_id,
        "tool": event.tool.name,
        "provider_info": provider_info(event.tool),
        "message": question.message,
    }
    if question.schema is not None:
        elicitation["requested_schema"] = dict(question.schema)
    else:
        elicitation["url"] = question.url
    return elicitation


class ChatStream(EventStream):
    """A generation's stream, which begins with the load's events if there is one, and stores the reply before its end.

    Without a load the generation has already begun: if a worker rejects the request, there is no stream.
    """

    def __init__(
        self,
        generation: RunningAnswer,
        headers: Mapping[str, str],
        instance_id: str,
        loading: LoadProgress | None,
        store: Store | None,
    ) -> None:
        """`store`: None if the reply is not to be stored."""
        self._chat = ChatRenderer(generation)
        super().__init__(generation, self._chat, headers)
        self._instance_id = instance_id
        self._loading = loading
        self._store = store

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

    async def _load(self, loading: LoadProgress, send: Send) -> None:
        id = self._instance_id
        await send_part(send, event_frame({"type": "model_load.start", "model_instance_id": id}))
        async for progress in loading.progress():
            await send_part(
                send, event_frame({"type": "model_load.progress", "model_instance_id": id, "progress": progress})
            )
        seconds = self._generation.load_seconds or 0.0
        await send_part(
            send, event_frame({"type": "model_load.end", "model_instance_id": id, "load_time_seconds": seconds})
        )

    async def _end(self) -> bytes:
        if self._store is not None:
            self._chat.response_id = await self._store(self._chat.messages)
        return await super()._end()

    def _failed(self, scope: Scope, error: AtelierError) -> bytes:
        return super()._failed(scope, error) + self._chat.interrupted()
