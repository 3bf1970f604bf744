"""OpenAI's chunks as bytes. Everything that does not change from token to token is encoded once for each stream."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.events import Delta, Event, Finished
from gateway.generation import Generation
from gateway.openai.translate import finish_reason, usage
from gateway.sse import DONE, frame

HOLE = "\0"  # stands for the text in a chunk that is encoded beforehand; no model or id contains it
HOLE_JSON = orjson.dumps(HOLE)

Json = dict[str, Any]


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
        opening_body: Json | None = None,
        closing_body: Json,
        include_usage: bool = False,
        at_end: Callable[[Finished], Json] = lambda finished: {},
    ) -> None:
        self._head = head
        self._no_usage: Json = {"usage": None} if include_usage else {}
        self._opening_body = opening_body
        self._closing_body = closing_body
        self._include_usage = include_usage
        self._at_end = at_end
        self._around_text = [self._split(index, body(HOLE)) for index in range(choices)]

    def opening(self) -> bytes:
        """The role, for each choice of a chat."""
        if self._opening_body is None:
            return b""
        return b"".join(self._chunk(index, self._opening_body, None) for index in range(len(self._around_text)))

    def event(self, event: Event) -> bytes:
        if isinstance(event, Delta):
            before, after = self._around_text[event.choice]
            return before + orjson.dumps(event.text) + after
        reason = finish_reason(event.reason)
        return self._chunk(event.choice, self._closing_body, reason, **self._at_end(event))

    def closing(self, generation: Generation) -> bytes:
        if not self._include_usage:
            return DONE
        return frame(orjson.dumps(self._head.with_choices([], usage=usage(generation)))) + DONE

    def _chunk(self, index: int, body: Json, reason: str | None, **more: Any) -> bytes:
        choice = {"index": index, **body, "logprobs": None, "finish_reason": reason}
        return frame(orjson.dumps(self._head.with_choices([choice], **self._no_usage, **more)))

    def _split(self, index: int, body: Json) -> tuple[bytes, bytes]:
        before, _, after = self._chunk(index, body, None).partition(HOLE_JSON)
        return before, after


def chat_renderer(
    head: Head,
    choices: int,
    *,
    include_usage: bool,
    at_end: Callable[[Finished], Json] = lambda finished: {},
) -> ChunkRenderer:
    return ChunkRenderer(
        head,
        choices,
        lambda text: {"delta": {"content": text}},
        opening_body={"delta": {"role": "assistant", "content": ""}},
        closing_body={"delta": {}},
        include_usage=include_usage,
        at_end=at_end,
    )


def text_renderer(head: Head, choices: int, *, include_usage: bool) -> ChunkRenderer:
    return ChunkRenderer(
        head, choices, lambda text: {"text": text}, closing_body={"text": ""}, include_usage=include_usage
    )
