"""Anthropic's events as bytes."""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from atelier.generation_types import Finished
from gateway.core.events import Delta, Event, Reasoning, ToolCallDelta
from gateway.core.inference import RunningAnswer
from gateway.dialects.anthropic.anthropic_replies import (
    SIGNATURE,
    AnyDelta,
    MessageEvent,
    SaidBlock,
    empty_message,
    ending,
    usage,
)
from gateway.dialects.reply import around_text
from gateway.http.streaming import named_frame


def frame(event: MessageEvent) -> bytes:
    """Named by its type: clients dispatch on the event's name."""
    return named_frame(event["type"], orjson.dumps(event))


@dataclass(frozen=True, slots=True)
class BlockKind:
    """An empty block, and the delta that appends a text to it."""

    start: SaidBlock
    delta: Callable[[str], AnyDelta]


TEXT = BlockKind({"type": "text", "text": ""}, lambda text: {"type": "text_delta", "text": text})
THINKING = BlockKind(
    {"type": "thinking", "thinking": "", "signature": ""}, lambda text: {"type": "thinking_delta", "thinking": text}
)


def tool_kind(id: str, name: str) -> BlockKind:
    return BlockKind(
        {"type": "tool_use", "id": id, "name": name, "input": {}},
        lambda text: {"type": "input_json_delta", "partial_json": text},
    )


class OpenBlock:
    """The block that is being generated. What its deltas have in common is encoded once."""

    def __init__(self, index: int, kind: BlockKind, call: int | None) -> None:
        """`call`: the index of the block's tool call."""
        self.kind = kind
        self.call = call
        self._index = index
        self._before, self._after = around_text(lambda text: self._delta(kind.delta(text)))

    def start(self) -> bytes:
        return frame({"type": "content_block_start", "index": self._index, "content_block": self.kind.start})

    def grow(self, text: str) -> bytes:
        return self._before + orjson.dumps(text) + self._after

    def stop(self) -> bytes:
        signed = self.kind is THINKING
        signature = self._delta({"type": "signature_delta", "signature": SIGNATURE}) if signed else b""
        return signature + frame({"type": "content_block_stop", "index": self._index})

    def _delta(self, delta: AnyDelta) -> bytes:
        return frame({"type": "content_block_delta", "index": self._index, "delta": delta})


class MessageRenderer:
    """One stream's events: one block after the other, in the order in which the model generates them.

    no open block --event of a kind--> open block --event of another kind, or the end--> closed
    """

    def __init__(self, generation: RunningAnswer, *, show_thinking: bool = True) -> None:
        self._generation = generation
        self._show_thinking = show_thinking
        self._blocks = 0
        self._open: OpenBlock | None = None

    def opening(self) -> bytes:
        message = empty_message(self._generation.plan.name, usage(self._generation))
        return frame({"type": "message_start", "message": message})

    def event(self, event: Event) -> bytes:
        match event:
            case Delta(_, text):
                return self._grow(TEXT, text)
            case Reasoning(_, text):
                return self._grow(THINKING, text if self._show_thinking else "")
            case ToolCallDelta(_, piece):
                kind = tool_kind(piece.id, piece.name) if piece.id else None
                return self._grow(kind, piece.arguments, piece.index)
            case Finished():
                return self._close()
        return b""

    def closing(self, generation: RunningAnswer) -> bytes:
        end = ending(generation.ends[0], generation.plan.call)
        delta = frame({"type": "message_delta", "delta": end, "usage": usage(generation)})
        return delta + frame({"type": "message_stop"})

    def _grow(self, kind: BlockKind | None, text: str, call: int | None = None) -> bytes:
        """`kind`: None for a further piece of the open tool call."""
        begun = b""
        if self._open is None or self._open.call != call or (call is None and self._open.kind is not kind):
            assert kind is not None, "the first piece of a call has its id"
            begun = self._close() + self._begin(kind, call)
        assert self._open is not None
        return begun + self._open.grow(text) if text else begun

    def _begin(self, kind: BlockKind, call: int | None) -> bytes:
        self._open = OpenBlock(self._blocks, kind, call)
        self._blocks += 1
        ping = frame({"type": "ping"}) if self._blocks == 1 else b""
        return self._open.start() + ping

    def _close(self) -> bytes:
        closed, self._open = self._open, None
        return closed.stop() if closed else b""
