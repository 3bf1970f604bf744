"""What comes of a completion, as a response's output items and as the events that tell of them. Pure.

Only one item is open at a time: what is of another kind closes it.
"""

from collections.abc import Sequence
from typing import Any

from atelier.tools import ToolCallPiece
from gateway.events import Completion, Delta, Event, Reasoning, TokenLogprob, ToolCallDelta, completion_events
from gateway.openai.logprobs import chat_logprobs
from gateway.responses.ids import output_item_id

Json = dict[str, Any]


class _Item:
    """What every kind has in common."""

    def __init__(self, kind: str, response_id: str, index: int, facts: Json) -> None:
        self.item: Json = {
            "id": output_item_id(response_id, kind, index),
            "type": kind,
            **facts,
            "status": "in_progress",
        }
        self._index = index
        self._pieces: list[str] = []

    def _event(self, kind: str, **facts: Any) -> Json:
        place = {"item_id": self.item["id"], "output_index": self._index}
        return {"type": f"response.{kind}", **place, **facts}

    def _added(self) -> Json:
        return {"type": "response.output_item.added", "output_index": self._index, "item": dict(self.item)}

    def _done(self) -> Json:
        return {"type": "response.output_item.done", "output_index": self._index, "item": self.item}


class MessageDraft(_Item):
    def __init__(self, response_id: str, index: int) -> None:
        super().__init__("message", response_id, index, {"role": "assistant", "content": []})
        self._logprobs: list[Json] = []

    def begin(self) -> list[Json]:
        return [self._added(), self._event("content_part.added", content_index=0, part=_text_part("", []))]

    def add(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        told: list[Json] = chat_logprobs(logprobs)["content"] if logprobs else []
        self._pieces.append(text)
        self._logprobs += told
        return [self._event("output_text.delta", content_index=0, delta=text, logprobs=told)]

    def end(self, status: str) -> list[Json]:
        text = "".join(self._pieces)
        part = _text_part(text, self._logprobs)
        self.item |= {"content": [part], "status": status}
        return [
            self._event("output_text.done", content_index=0, text=text, logprobs=self._logprobs),
            self._event("content_part.done", content_index=0, part=part),
            self._done(),
        ]


class ReasoningDraft(_Item):
    def __init__(self, response_id: str, index: int) -> None:
        super().__init__("reasoning", response_id, index, {"summary": [], "content": []})

    def begin(self) -> list[Json]:
        return [self._added(), self._event("content_part.added", content_index=0, part=_reasoning_part(""))]

    def add(self, text: str) -> list[Json]:
        self._pieces.append(text)
        return [self._event("reasoning_text.delta", content_index=0, delta=text)]

    def end(self, status: str) -> list[Json]:
        text = "".join(self._pieces)
        self.item |= {"content": [_reasoning_part(text)], "status": status}
        return [
            self._event("reasoning_text.done", content_index=0, text=text),
            self._event("content_part.done", content_index=0, part=_reasoning_part(text)),
            self._done(),
        ]


class CallDraft(_Item):
    def __init__(self, response_id: str, index: int, piece: ToolCallPiece) -> None:
        facts = {"call_id": piece.id, "name": piece.name, "arguments": ""}
        super().__init__("function_call", response_id, index, facts)
        self.number = piece.index

    def begin(self) -> list[Json]:
        return [self._added()]

    def add(self, arguments: str) -> list[Json]:
        self._pieces.append(arguments)
        return [self._event("function_call_arguments.delta", delta=arguments)] if arguments else []

    def end(self, status: str) -> list[Json]:
        arguments = "".join(self._pieces)
        self.item |= {"arguments": arguments, "status": status}
        done = self._event("function_call_arguments.done", name=self.item["name"], arguments=arguments)
        return [done, self._done()]


Draft = MessageDraft | ReasoningDraft | CallDraft


class Output:
    """The items so far; the last may be open."""

    def __init__(self, response_id: str) -> None:
        self._response_id = response_id
        self._drafts: list[Draft] = []
        self._open: Draft | None = None

    @property
    def items(self) -> list[Json]:
        return [draft.item for draft in self._drafts]

    def take(self, event: Event) -> list[Json]:
        """What the client gets for it."""
        match event:
            case Delta(_, text, logprobs):
                return self._add_text(text, logprobs)
            case Reasoning(_, text):
                return self._add_reasoning(text)
            case ToolCallDelta(_, piece):
                return self._add_call(piece)
        return []

    def end(self, status: str) -> list[Json]:
        """A completion without a word is an empty message."""
        opened = [] if self._drafts else self._begin(MessageDraft(self._response_id, 0))
        return opened + self._close(status)

    def _add_text(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        if isinstance(self._open, MessageDraft):
            return self._open.add(text, logprobs)
        draft = MessageDraft(self._response_id, len(self._drafts))
        return self._begin(draft) + draft.add(text, logprobs)

    def _add_reasoning(self, text: str) -> list[Json]:
        if isinstance(self._open, ReasoningDraft):
            return self._open.add(text)
        draft = ReasoningDraft(self._response_id, len(self._drafts))
        return self._begin(draft) + draft.add(text)

    def _add_call(self, piece: ToolCallPiece) -> list[Json]:
        if isinstance(self._open, CallDraft) and self._open.number == piece.index:
            return self._open.add(piece.arguments)
        draft = CallDraft(self._response_id, len(self._drafts), piece)
        return self._begin(draft) + draft.add(piece.arguments)

    def _begin(self, draft: Draft) -> list[Json]:
        closed = self._close("completed")
        self._drafts.append(draft)
        self._open = draft
        return closed + draft.begin()

    def _close(self, status: str) -> list[Json]:
        draft, self._open = self._open, None
        return draft.end(status) if draft is not None else []


def whole_output(response_id: str, completion: Completion, status: str) -> list[Json]:
    """The items of a completion that has come in one piece."""
    output = Output(response_id)
    for event in completion_events(completion):
        output.take(event)
    output.end(status)
    return output.items


def _text_part(text: str, logprobs: list[Json]) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _reasoning_part(text: str) -> Json:
    return {"type": "reasoning_text", "text": text}
