"""What an answer of LM Studio's v1 chat consists of, as it grows: the client's items, and the messages to keep."""

from typing import Any

import orjson

from gateway.events import Delta, Event, HostedCallBegun, HostedCallEnded, Reasoning, ToolCallDelta
from gateway.lmstudio.integrations import provider_info
from gateway.mcp_host.tool import HostedTool, ToolImage, ToolOutput
from gateway.tool_loop.messages import seen_image

Json = dict[str, Any]


class ChatOutput:
    """Takes an answer's events, one after the other."""

    def __init__(self) -> None:
        self._items: list[Json] = []  # what is written has its pieces as content until it is asked for
        self._steps: list[_StepMessages] = []

    def take(self, event: Event) -> None:
        match event:
            case Reasoning(_, text):
                self._grow("reasoning", text)
                self._step().reasoning.append(text)
            case Delta(_, text):
                self._grow("message", text)
                self._step().text.append(text)
            case HostedCallBegun():
                self._step()
            case HostedCallEnded():
                self._items.append(call_item(event))
                self._steps[-1].ended.append(event)
            case ToolCallDelta(_, piece) if piece.name:
                self._items.append({"type": "invalid_tool_call", **unknown_tool(piece.name)})

    def whole_items(self) -> list[Json]:
        """An answer without a word is a message all the same, unless it was all reasoning."""
        return [_joined(item) for item in self._items] or [{"type": "message", "content": ""}]

    def messages(self, *, sees: bool) -> list[Json]:
        """As a chat that goes on keeps them. `sees`: whether the model sees images."""
        steps = self._steps or [_StepMessages()]
        return [message for step in steps for message in step.messages(sees=sees)]

    def _grow(self, kind: str, text: str) -> None:
        if self._items and self._items[-1]["type"] == kind:
            self._items[-1]["content"].append(text)
        else:
            self._items.append({"type": kind, "content": [text]})

    def _step(self) -> "_StepMessages":
        """The one that grows: what comes after a call has ended is of the next one."""
        if not self._steps or self._steps[-1].ended:
            self._steps.append(_StepMessages())
        return self._steps[-1]


def _joined(item: Json) -> Json:
    return {**item, "content": "".join(item["content"])} if "content" in item else item


class _StepMessages:
    """What the model wrote and called in one go, and the results."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.ended: list[HostedCallEnded] = []

    def messages(self, *, sees: bool) -> list[Json]:
        said: Json = {"role": "assistant", "content": "".join(self.text)}
        if self.reasoning:
            said["reasoning_content"] = "".join(self.reasoning)
        if self.ended:
            said["tool_calls"] = [_history_call(each) for each in self.ended]
        return [said, *(_result(each, sees=sees) for each in self.ended)]


def _history_call(ended: HostedCallEnded) -> Json:
    function = {"name": ended.tool.shown, "arguments": ended.arguments}
    return {"id": ended.id, "type": "function", "function": function}


def _result(ended: HostedCallEnded, *, sees: bool) -> Json:
    content: str | list[Json] = f"Error: {ended.error}"
    if ended.output is not None:
        content = [_kept(piece, sees=sees) for piece in ended.output.pieces]
        if all(item["type"] == "text" for item in content):
            content = "\n".join(item["content"] for item in content)
    return {"role": "tool", "tool_call_id": ended.id, "name": ended.tool.shown, "content": content}


def _kept(piece: str | ToolImage, *, sees: bool) -> Json:
    if isinstance(piece, str):
        return {"type": "text", "content": piece}
    if isinstance(seen := seen_image(piece, sees=sees), str):
        return {"type": "text", "content": seen}
    return {"type": "image", "data_url": f"data:{piece.media_type};base64,{piece.data}"}


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


def arguments_object(arguments: str) -> Json:
    """LM Studio tells arguments as an object; what is none, as it would be where the answer was cut off, is empty."""
    try:
        found = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def output_text(output: ToolOutput) -> str:
    """MCP's content as a JSON text."""
    content = [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image", "data": piece.data, "mimeType": piece.media_type}
        for piece in output.pieces
    ]
    return orjson.dumps(content).decode()
