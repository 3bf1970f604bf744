"""OpenAI's chunks as bytes. Everything that does not change from token to token is encoded once for each stream."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from atelier.json_types import Json
from atelier.submission import ToolCallPiece
from gateway.core.answer import Answering
from gateway.core.events import (
    Delta,
    Elicited,
    Event,
    Finished,
    HostedEvent,
    PromptProgress,
    Reasoning,
    TokenLogprob,
    ToolCallDelta,
)
from gateway.dialects.event_stream import around_text
from gateway.dialects.openai.openai_logprobs import TextLogprobsEncoder, chat_logprobs
from gateway.dialects.openai.openai_replies import (
    call_delta,
    elicitation,
    finish_reason,
    function_call_delta,
    tool_call_delta,
    usage,
)
from gateway.http.server_sent_events import DONE, frame


@dataclass(frozen=True, slots=True)
class Head:
    """What all objects of one reply begin with."""

    object: str
    model: str
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    def with_choices(self, choices: list[Json], **more: Any) -> Json:
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }


def chat_head(model: str, *, stream: bool) -> Head:
    return Head("chat.completion.chunk" if stream else "chat.completion", model, f"chatcmpl-{uuid.uuid4().hex}")


def text_head(model: str) -> Head:
    return Head("text_completion", model, f"cmpl-{uuid.uuid4().hex}")


class ChunkRenderer:
    """One stream's chunks. What differs between chat and text, and LM Studio's, is given."""

    def __init__(
        self,
        head: Head,
        choices: int,
        body: Callable[[str], Json],
        *,
        openings: Sequence[Json] = (),
        closing_body: Json,
        logprobs: Sequence[Callable[[Sequence[TokenLogprob]], Json]] = (),
        include_usage: bool = False,
        at_end: Callable[[Finished], Mapping[str, object]] = lambda finished: {},
        older_calls: bool = False,
    ) -> None:
        self._head = head
        self._no_usage: Json = {"usage": None} if include_usage else {}
        self._body = body
        self._openings = openings  # of each choice, or of none
        self._closing_body = closing_body
        self._logprobs = logprobs  # of each choice, or of none
        self._include_usage = include_usage
        self._at_end = at_end
        self._older_calls = older_calls
        self._around_text = [around_text(partial(self._text_chunk, index)) for index in range(choices)]

    def opening(self) -> bytes:
        """The role of each choice of a chat, the prompt of each text that echoes it."""
        return b"".join(self._chunk(index, body, None) for index, body in enumerate(self._openings))

    def event(self, event: Event) -> bytes:
        if isinstance(event, Delta):
            if event.logprobs:
                return self._with_logprobs(event)
            before, after = self._around_text[event.choice]
            return before + orjson.dumps(event.text) + after
        if isinstance(event, PromptProgress):
            return self._chunk(event.choice, self._closing_body, None, prompt_progress=progress_object(event))
        if isinstance(event, Reasoning):
            return self._chunk(event.choice, {"delta": {"reasoning_content": event.text}}, None)
        if isinstance(event, ToolCallDelta):
            return self._call_chunk(event.choice, event.piece)
        if not isinstance(event, Finished):
            return self._hosted_chunk(event)
        reason = finish_reason(event.reason, older_calls=self._older_calls)
        return self._chunk(event.choice, self._closing_body, reason, None, **self._at_end(event))

    def closing(self, generation: Answering) -> bytes:
        if not self._include_usage:
            return DONE
        return frame(orjson.dumps(self._head.with_choices([], usage=usage(generation)))) + DONE

    def _with_logprobs(self, event: Delta) -> bytes:
        logprobs = self._logprobs[event.choice](event.logprobs)
        return self._chunk(event.choice, self._body(event.text), None, logprobs)

    def _call_chunk(self, choice: int, piece: ToolCallPiece) -> bytes:
        if not self._older_calls:
            return self._chunk(choice, {"delta": {"tool_calls": [tool_call_delta(piece)]}}, None)
        if piece.index:  # there is room for one call
            return b""
        return self._chunk(choice, {"delta": {"function_call": function_call_delta(piece)}}, None)

    def _hosted_chunk(self, event: HostedEvent) -> bytes:
        if isinstance(event, Elicited):
            return self._chunk(event.choice, {"delta": {"mcp_elicitations": [elicitation(event)]}}, None)
        told = call_delta(event)
        return self._chunk(event.choice, {"delta": {"mcp_calls": [told]}}, None) if told else b""

    def _chunk(self, index: int, body: Json, reason: str | None, logprobs: Json | None = None, **more: Any) -> bytes:
        choice = {"index": index, **body, "logprobs": logprobs, "finish_reason": reason}
        return frame(orjson.dumps(self._head.with_choices([choice], **self._no_usage, **more)))

    def _text_chunk(self, index: int, text: str) -> bytes:
        return self._chunk(index, self._body(text), None)


def chat_renderer(
    head: Head,
    choices: int,
    *,
    include_usage: bool,
    at_end: Callable[[Finished], Mapping[str, object]] = lambda finished: {},
    older_calls: bool = False,
) -> ChunkRenderer:
    """`older_calls`: a tool call is told as function_call."""
    return ChunkRenderer(
        head,
        choices,
        lambda text: {"delta": {"content": text}},
        openings=[{"delta": {"role": "assistant", "content": ""}}] * choices,
        closing_body={"delta": {}},
        logprobs=[chat_logprobs] * choices,
        include_usage=include_usage,
        at_end=at_end,
        older_calls=older_calls,
    )


def text_renderer(
    head: Head,
    choices: int,
    *,
    include_usage: bool,
    openings: Sequence[str] = (),
    at_end: Callable[[Finished], Mapping[str, object]] = lambda finished: {},
) -> ChunkRenderer:
    """`openings`: what each choice's text begins with."""
    return ChunkRenderer(
        head,
        choices,
        lambda text: {"text": text},
        openings=[{"text": text} for text in openings],
        closing_body={"text": ""},
        logprobs=[TextLogprobsEncoder().render for _ in range(choices)],
        include_usage=include_usage,
        at_end=at_end,
    )


def progress_object(progress: PromptProgress) -> Json:
    """As llama.cpp's server tells it."""
    return {
        "total": progress.prompt_tokens,
        "cache": progress.cached_tokens,
        "processed": progress.done_tokens,
        "time_ms": round(progress.seconds * 1000),
    }
