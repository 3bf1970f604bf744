"""A response's output items while they grow, and the events that report them. Pure."""

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from atelier.generation_types import ToolCallPiece
from atelier.json_types import Json
from gateway.core.events import ApprovalWanted, HostedCallBegun, HostedCallEnded, TokenLogprob
from gateway.dialects.openai.openai_logprobs import Logprob, chat_logprobs
from gateway.dialects.responses.hosted_call_items import listed_tools, outcome
from gateway.dialects.responses.response_items import OutputItem, OutputText, ReasoningText, output_item_id
from gateway.tools.loop.toolset import ServerListing


class Numbered(TypedDict):
    sequence_number: int


class ItemEvent(Numbered):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class PlacedEvent(Numbered):
    item_id: str
    output_index: int


class PartEvent(PlacedEvent):
    type: Literal["response.content_part.added", "response.content_part.done"]
    content_index: int
    part: OutputText | ReasoningText


class OutputTextDelta(PlacedEvent):
    type: Literal["response.output_text.delta"]
    content_index: int
    delta: str
    logprobs: list[Logprob]


class OutputTextDone(PlacedEvent):
    type: Literal["response.output_text.done"]
    content_index: int
    text: str
    logprobs: list[Logprob]


class ReasoningTextDelta(PlacedEvent):
    type: Literal["response.reasoning_text.delta"]
    content_index: int
    delta: str


class ReasoningTextDone(PlacedEvent):
    type: Literal["response.reasoning_text.done"]
    content_index: int
    text: str


class ArgumentsDelta(PlacedEvent):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDone(PlacedEvent):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class MCPArgumentsDelta(PlacedEvent):
    type: Literal["response.mcp_call_arguments.delta"]
    delta: str


class MCPArgumentsDone(PlacedEvent):
    type: Literal["response.mcp_call_arguments.done"]
    arguments: str


class MCPState(PlacedEvent):
    type: Literal[
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
    ]


class ItemDraft:
    """The base of every kind of item."""

    def __init__(self, kind: str, response_id: str, index: int, facts: Json) -> None:
        self.item: Json = {
            "id": output_item_id(response_id, kind, index),
            "type": kind,
            **facts,
            "status": "in_progress",
        }
        self._index = index
        self._pieces: list[str] = []

    def _event(self, kind: str, **facts: object) -> Json:
        place = {"item_id": self.item["id"], "output_index": self._index}
        return {"type": f"response.{kind}", **place, **facts}

    def _added(self) -> Json:
        return {"type": "response.output_item.added", "output_index": self._index, "item": dict(self.item)}

    def _done(self) -> Json:
        return {"type": "response.output_item.done", "output_index": self._index, "item": self.item}


class MessageDraft(ItemDraft):
    def __init__(self, response_id: str, index: int) -> None:
        super().__init__("message", response_id, index, {"role": "assistant", "content": []})
        self._logprobs: list[Logprob] = []

    def begin(self) -> list[Json]:
        return [self._added(), self._event("content_part.added", content_index=0, part=_text_part("", []))]

    def add(self, text: str, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        rated = chat_logprobs(logprobs)["content"] if logprobs else []
        self._pieces.append(text)
        self._logprobs += rated
        return [self._event("output_text.delta", content_index=0, delta=text, logprobs=rated)]

    def end(self, status: str) -> list[Json]:
        text = "".join(self._pieces)
        part = _text_part(text, self._logprobs)
        self.item |= {"content": [part], "status": status}
        return [
            self._event("output_text.done", content_index=0, text=text, logprobs=self._logprobs),
            self._event("content_part.done", content_index=0, part=part),
            self._done(),
        ]


class ReasoningDraft(ItemDraft):
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


class CallDraft(ItemDraft):
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


class ServerCallDraft(ItemDraft):
    """A call of a server's tool, from its first token to its outcome."""

    def __init__(self, response_id: str, index: int, begun: HostedCallBegun, approval_request_id: str | None) -> None:
        facts = {
            "server_label": begun.tool.label,
            "name": begun.tool.name,
            "arguments": "",
            "approval_request_id": approval_request_id,
            "output": None,
            "error": None,
        }
        super().__init__("mcp_call", response_id, index, facts)

    def begin(self) -> list[Json]:
        return [self._added(), self._event("mcp_call.in_progress")]

    def add(self, arguments: str) -> list[Json]:
        return [self._event("mcp_call_arguments.delta", delta=arguments)]

    def run(self, arguments: str) -> list[Json]:
        self.item |= {"arguments": arguments, "status": "calling"}
        return [self._event("mcp_call_arguments.done", arguments=arguments)]

    def end(self, ended: HostedCallEnded) -> list[Json]:
        """A call that did not run was cut off by the end of the answer."""
        if self.item["status"] == "calling":
            events, status = [], "failed" if ended.failure is not None else "completed"
        else:
            events, status = self.run(ended.arguments), "incomplete"
        self.item |= {**outcome(ended), "status": status}
        return [*events, self._event(f"mcp_call.{'completed' if status == 'completed' else 'failed'}"), self._done()]


class ListDraft(ItemDraft):
    """The list of a server's tools, which is known before the response begins."""

    def __init__(self, response_id: str, index: int, listing: ServerListing) -> None:
        super().__init__("mcp_list_tools", response_id, index, {"server_label": listing.use.server.label, "tools": []})
        self._tools = listed_tools(listing)
        del self.item["status"]

    def all(self) -> list[Json]:
        begun = [self._added(), self._event("mcp_list_tools.in_progress")]
        self.item["tools"] = self._tools
        return [*begun, self._event("mcp_list_tools.completed"), self._done()]


class ApprovalDraft(ItemDraft):
    """A call that waits for the client's approval."""

    def __init__(self, response_id: str, index: int, wanted: ApprovalWanted) -> None:
        facts = {"server_label": wanted.tool.label, "name": wanted.tool.name, "arguments": wanted.arguments}
        super().__init__("mcp_approval_request", response_id, index, facts)
        del self.item["status"]

    def all(self) -> list[Json]:
        return [self._added(), self._done()]


def _text_part(text: str, logprobs: list[Logprob]) -> OutputText:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _reasoning_part(text: str) -> ReasoningText:
    return {"type": "reasoning_text", "text": text}
