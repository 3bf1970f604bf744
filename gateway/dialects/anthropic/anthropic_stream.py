"""Anthropic's events as bytes."""

from dataclasses import dataclass

import orjson

from atelier.json_types import Json
from gateway.core.answer import Answering
from gateway.core.events import Delta, Event, Finished, Reasoning, ToolCallDelta
from gateway.dialects.anthropic.anthropic_translation import SIGNATURE, ending, message_id, message_object, usage

HOLE = "\0"  # stands for the text in an event that is encoded beforehand
HOLE_JSON = orjson.dumps(HOLE)


def frame(event: Json) -> bytes:
    """Named as its type, which is what clients go by."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A block's empty beginning, and the deltas that fill it."""

    start: Json
    delta: str
    field: str


TEXT = Kind({"type": "text", "text": ""}, "text_delta", "text")
THINKING = Kind({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking")


def tool_kind(id: str, name: str) -> Kind:
    return Kind({"type": "tool_use", "id": id, "name": name, "input": {}}, "input_json_delta", "partial_json")


class OpenBlock:
    """The block that grows. What is the same in all its deltas is encoded once."""

    def __init__(self, index: int, kind: Kind, call: int | None) -> None:
        self.kind = kind
        self.call = call  # index of the tool call that it is
        self._index = index
        self._before, _, self._after = frame(self._delta(kind.delta, kind.field, HOLE)).partition(HOLE_JSON)

    def start(self) -> bytes:
        return frame({"type": "content_block_start", "index": self._index, "content_block": self.kind.start})

    def grow(self, text: str) -> bytes:
        return self._before + orjson.dumps(text) + self._after

    def stop(self) -> bytes:
        signature = self._delta("signature_delta", "signature", SIGNATURE)
        signed = frame(signature) if self.kind is THINKING else b""
        return signed + frame({"type": "content_block_stop", "index": self._index})

    def _delta(self, kind: str, field: str, text: str) -> Json:
        return {"type": "content_block_delta", "index": self._index, "delta": {"type": kind, field: text}}


class MessageRenderer:
    """One stream's events; one block after another, in the order in which the model writes them.

    nothing open --event of a kind--> block open --event of another kind, end--> block closed
    """

    def __init__(self, generation: Answering, *, show_thinking: bool = True) -> None:
        self._generation = generation
        self._show_thinking = show_thinking
        self._blocks = 0
        self._open: OpenBlock | None = None

    def opening(self) -> bytes:
        name, unknown = self._generation.plan.name, {"stop_reason": None, "stop_sequence": None}
        message = message_object(name, [], unknown, usage(self._generation), message_id())
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

    def closing(self, generation: Answering) -> bytes:
        end = ending(generation.ends[0], generation.plan.call)
        return frame({"type": "message_delta", "delta": end, "usage": usage(generation)}) + frame(
            {"type": "message_stop"}
        )

    def _grow(self, kind: Kind | None, text: str, call: int | None = None) -> bytes:
        """`kind`: None goes on with the tool call that is open."""
        begun = b""
        if self._open is None or self._open.call != call or (call is None and self._open.kind is not kind):
            assert kind is not None, "the first piece of a call has its id"
            begun = self._close() + self._begin(kind, call)
        assert self._open is not None
        return begun + self._open.grow(text) if text else begun

    def _begin(self, kind: Kind, call: int | None) -> bytes:
        self._open = OpenBlock(self._blocks, kind, call)
        self._blocks += 1
        ping = frame({"type": "ping"}) if self._blocks == 1 else b""
        return self._open.start() + ping

    def _close(self) -> bytes:
        closed, self._open = self._open, None
        return closed.stop() if closed else b""
