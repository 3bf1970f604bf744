"""What an answer of LM Studio's v1 chat consists of, as it grows: the client's items, and the messages to keep."""

import orjson

from atelier.json_types import Json
from gateway.core.events import Delta, Elicited, Event, HostedCallBegun, HostedCallEnded, Reasoning, ToolCallDelta
from gateway.core.hosted_tool import HostedTool, ToolOutput
from gateway.dialects.lmstudio.integrations import provider_info
from gateway.dialects.lmstudio.lmstudio_chat import kept_message
from gateway.tools.loop.step_messages import step_messages
from gateway.tools.loop.toolset import read_arguments


class ChatOutput:
    """Takes an answer's events, one after the other.

    Each step of an answer that calls tools has its thoughts, its text and its calls, in this order.
    """

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def take(self, event: Event) -> None:
        match event:
            case Reasoning(_, text):
                self._step().reasoning.append(text)
            case Delta(_, text):
                self._step().text.append(text)
            case HostedCallBegun():
                self._step()
            case HostedCallEnded():
                self._steps[-1].ended.append(event)
            case ToolCallDelta(_, piece) if piece.name:
                self._step().unknown.append(piece.name)

    def whole_items(self) -> list[Json]:
        """An answer without a word is a message all the same, unless it was all reasoning."""
        return [item for step in self._steps for item in step.items()] or [{"type": "message", "content": ""}]

    def messages(self, *, sees: bool) -> list[Json]:
        """As a chat that goes on keeps them. `sees`: whether the model sees images."""
        steps = self._steps or [_Step()]
        return [kept_message(message) for step in steps for message in step.messages(sees=sees)]

    def _step(self) -> "_Step":
        """The one that grows: what comes after a call has ended is of the next one."""
        if not self._steps or self._steps[-1].ended:
            self._steps.append(_Step())
        return self._steps[-1]


class _Step:
    """What the model wrote and called in one go, and the results."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.ended: list[HostedCallEnded] = []
        self.unknown: list[str] = []  # names of tools that there are not

    def items(self) -> list[Json]:
        written = (("reasoning", self.reasoning), ("message", self.text))
        items: list[Json] = [{"type": kind, "content": "".join(pieces)} for kind, pieces in written if pieces]
        calls = map(call_item, self.calls())
        return [*items, *calls, *({"type": "invalid_tool_call", **unknown_tool(name)} for name in self.unknown)]

    def messages(self, *, sees: bool) -> list[Json]:
        return step_messages("".join(self.text), "".join(self.reasoning), self.calls(), vision=sees)

    def calls(self) -> list[HostedCallEnded]:
        """In the order in which the model wrote them."""
        return sorted(self.ended, key=lambda each: each.number)


def call_item(ended: HostedCallEnded) -> Json:
    """A call that its tool has answered, if only to say that it failed; or one that never got there."""
    if ended.output is None:
        return {"type": "invalid_tool_call", **failure(ended)}
    return {"type": "tool_call", **success(ended, ended.output)}


def success(ended: HostedCallEnded, output: ToolOutput) -> Json:
    told = {"tool": ended.tool.name, "arguments": arguments_object(ended.arguments), "output": output_text(output)}
    return {**told, "provider_info": provider_info(ended.tool)}


def failure(ended: HostedCallEnded) -> Json:
    arguments = arguments_object(ended.arguments)
    metadata: Json = {"type": "failed", "tool_name": ended.tool.name, "arguments": arguments}
    return {"reason": ended.error, "metadata": {**metadata, "provider_info": provider_info(ended.tool)}}


def unknown_tool(name: str) -> Json:
    return {
        "reason": f'There is no tool "{name[:64]}".',
        "metadata": {"type": "invalid_name", "tool_name": name},
    }


def started(tool: HostedTool) -> Json:
    return {"tool": tool.name, "provider_info": provider_info(tool)}


def elicited(event: Elicited) -> Json:
    """Ours: LM Studio has no such event."""
    return {"id": event.question_id, **started(event.tool), **event.question.told}


def arguments_object(arguments: str) -> Json:
    """LM Studio tells arguments as an object; what is none, as it would be where the answer was cut off, is empty."""
    return read_arguments(arguments) or {}


def output_text(output: ToolOutput) -> str:
    """MCP's content as a JSON text."""
    content = [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image", "data": piece.data, "mimeType": piece.media_type}
        for piece in output.pieces
    ]
    return orjson.dumps(content).decode()
