"""OpenAI's chunks as bytes. What is the same in all chunks with text is encoded once per stream."""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from typing_extensions import TypedDict

from atelier.generation_types import Finished, ToolCallPiece
from atelier.json_types import Json
from gateway.core.events import Delta, Event, PromptProgress, Reasoning, TokenLogprob, ToolCallDelta
from gateway.core.inference import RunningAnswer
from gateway.dialects.openai import openai_replies as replies
from gateway.dialects.openai.openai_logprobs import ChatLogprobs, TextLogprobs, TextLogprobsEncoder, chat_logprobs
from gateway.dialects.openai.openai_replies import ChatDelta, finish_reason, usage
from gateway.dialects.reply import around_text
from gateway.fleet.snapshot import Instance
from gateway.http.streaming import DONE, frame


class ChatPart(TypedDict):
    delta: ChatDelta


class TextPart(TypedDict):
    text: str


Part = ChatPart | TextPart
"""The part of a chunk's choice that differs between chats and texts."""

AtEnd = Callable[[Finished], Mapping[str, object]]
"""The fields that a dialect adds to the last chunk of a choice."""


def nothing_more(finished: Finished) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class Head:
    """The fields that all objects of one reply begin with."""

    object: str
    model: str
    id: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    def with_choices(self, choices: Sequence[Any], **more: Any) -> Json:
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            **more,
        }


def chat_head(answer: RunningAnswer, *, stream: bool) -> Head:
    return _head(answer, "chat.completion.chunk" if stream else "chat.completion", "chatcmpl")


def text_head(answer: RunningAnswer) -> Head:
    return _head(answer, "text_completion", "cmpl")


def _head(answer: RunningAnswer, kind: str, prefix: str) -> Head:
    return Head(kind, answer.plan.name, f"{prefix}-{uuid.uuid4().hex}", system_fingerprint(answer.instance))


def system_fingerprint(instance: Instance) -> str:
    """Of the model and its load settings, with which a seed gives the same text: always, if it says `reproducible`."""
    facts = orjson.dumps([instance.model_key, dict(instance.load)], option=orjson.OPT_SORT_KEYS)
    kind = "-reproducible" if instance.load.get("reproducible") else ""
    return f"fp_{hashlib.sha256(facts).hexdigest()[:12]}{kind}"


class ChunkRenderer:
    """One stream's chunks, of chats and of texts, in OpenAI's dialect and in those that extend it."""

    def __init__(
        self,
        head: Head,
        choices: int,
        part: Callable[[str], Part],
        *,
        openings: Sequence[Part] = (),
        empty_part: Part,
        logprobs: Sequence[Callable[[Sequence[TokenLogprob]], ChatLogprobs | TextLogprobs]],
        include_usage: bool,
        at_end: AtEnd,
        older_calls: bool = False,
    ) -> None:
        """`openings` and `logprobs`: for each choice. `older_calls`: tool calls are sent as function_call."""
        self._head = head
        self._no_usage: Json = {"usage": None} if include_usage else {}
        self._part = part
        self._openings = openings
        self._empty_part = empty_part
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._at_end = at_end
        self._older_calls = older_calls
        self._around_text = [around_text(partial(self._text_chunk, index)) for index in range(choices)]

    def opening(self) -> bytes:
        """The role of each choice of a chat; the prompt of each text that echoes it."""
        return b"".join(self._chunk(index, part, None) for index, part in enumerate(self._openings))

    def event(self, event: Event) -> bytes:
        if isinstance(event, Delta):
            if event.logprobs:
                return self._with_logprobs(event)
            before, after = self._around_text[event.choice]
            return before + orjson.dumps(event.text) + after
        if isinstance(event, PromptProgress):
            return self._chunk(event.choice, self._empty_part, None, more={"prompt_progress": prompt_progress(event)})
        if isinstance(event, Reasoning):
            return self._delta_chunk(event.choice, {"reasoning_content": event.text})
        if isinstance(event, ToolCallDelta):
            return self._call_chunk(event.choice, event.piece)
        if not isinstance(event, Finished):
            delta = replies.hosted_delta(event)
            return self._delta_chunk(event.choice, delta) if delta else b""
        reason = finish_reason(event.reason, older_calls=self._older_calls)
        return self._chunk(event.choice, self._empty_part, reason, more=self._at_end(event))

    def closing(self, generation: RunningAnswer) -> bytes:
        if not self._include_usage:
            return DONE
        return frame(orjson.dumps(self._head.with_choices([], usage=usage(generation)))) + DONE

    def _with_logprobs(self, event: Delta) -> bytes:
        logprobs = self._logprobs[event.choice](event.logprobs)
        return self._chunk(event.choice, self._part(event.text), None, logprobs)

    def _call_chunk(self, choice: int, piece: ToolCallPiece) -> bytes:
        if not self._older_calls:
            return self._delta_chunk(choice, {"tool_calls": [replies.tool_call_delta(piece)]})
        if piece.index:  # function_call has room for one call
            return b""
        return self._delta_chunk(choice, {"function_call": replies.function_call_delta(piece)})

    def _delta_chunk(self, index: int, delta: ChatDelta) -> bytes:
        return self._chunk(index, {"delta": delta}, None)

    def _text_chunk(self, index: int, text: str) -> bytes:
        return self._chunk(index, self._part(text), None)

    def _chunk(
        self,
        index: int,
        part: Part,
        reason: replies.FinishReason | None,
        logprobs: ChatLogprobs | TextLogprobs | None = None,
        more: Mapping[str, object] | None = None,
    ) -> bytes:
        choice: Json = {"index": index, **part, "logprobs": logprobs, "finish_reason": reason}
        return frame(orjson.dumps(self._head.with_choices([choice], **self._no_usage, **(more or {}))))


def chat_renderer(
    head: Head, choices: int, *, include_usage: bool, at_end: AtEnd = nothing_more, older_calls: bool = False
) -> ChunkRenderer:
    """`older_calls`: tool calls are sent as function_call."""
    return ChunkRenderer(
        head,
        choices,
        lambda text: {"delta": {"content": text}},
        openings=[{"delta": {"role": "assistant", "content": ""}}] * choices,
        empty_part={"delta": {}},
        logprobs=[chat_logprobs] * choices,
        include_usage=include_usage,
        at_end=at_end,
        older_calls=older_calls,
    )


def text_renderer(
    head: Head, choices: int, *, include_usage: bool, openings: Sequence[str] = (), at_end: AtEnd = nothing_more
) -> ChunkRenderer:
    """`openings`: the text before each choice."""
    return ChunkRenderer(
        head,
        choices,
        lambda text: {"text": text},
        openings=[{"text": text} for text in openings],
        empty_part={"text": ""},
        logprobs=[TextLogprobsEncoder().render for _ in range(choices)],
        include_usage=include_usage,
        at_end=at_end,
    )


def prompt_progress(progress: PromptProgress) -> replies.PromptProgress:
    """In the format of llama.cpp's server."""
    return {
        "total": progress.prompt_tokens,
        "cache": progress.cached_tokens,
        "processed": progress.done_tokens,
        "time_ms": round(progress.seconds * 1000),
    }
