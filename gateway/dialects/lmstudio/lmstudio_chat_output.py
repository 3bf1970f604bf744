"""The output of LM Studio's v1 chat as it grows: the items for the client, and the messages to store."""

import orjson

from atelier.json_types import Json
from gateway.core.events import Delta, Event, HostedCallBegun, HostedCallEnded, Reasoning, ToolCallDelta
from gateway.core.hosted_tool import HostedTool, ToolOutput
from gateway.core.mcp_server_config import Endpoint
from gateway.dialects.lmstudio.lmstudio_chat_replies import (
    CalledTool,
    CallFailure,
    CallResult,
    FailedCall,
    ProviderInfo,
    V1InvalidToolCall,
    V1Output,
    V1Text,
    V1ToolCall,
)
from gateway.dialects.lmstudio.lmstudio_requests import MCP_PREFIX
from gateway.dialects.lmstudio.stored_conversation import stored_message
from gateway.tools.loop.step_messages import step_messages
from gateway.tools.loop.toolset import read_arguments


class ChatOutput:
    """Collects a generation's events.

    Each step, of which a generation that calls tools has several, consists of reasoning, text and calls, in this order.
    """

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def add(self, event: Event) -> None:
        match event:
            case Reasoning(_, text):
                self._current_step().reasoning.append(text)
            case Delta(_, text):
                self._current_step().text.append(text)
            case HostedCallBegun():
                self._current_step()
            case HostedCallEnded():
                self._steps[-1].ended.append(event)
            case ToolCallDelta(_, piece) if piece.name:
                self._current_step().unknown_tools.append(piece.name)

    def whole_items(self) -> list[V1Output]:
        """Output without any text is one empty message, unless there is reasoning or a call."""
        empty: V1Text = {"type": "message", "content": ""}
        return [item for step in self._steps for item in step.items()] or [empty]

    def messages(self, *, vision: bool) -> list[Json]:
        """For the stored conversation. `vision`: whether the model supports images."""
        steps = self._steps or [_Step()]
        return [stored_message(message) for step in steps for message in step.messages(vision=vision)]

    def _current_step(self) -> "_Step":
        """Events after the end of a call belong to the next step."""
        if not self._steps or self._steps[-1].ended:
            self._steps.append(_Step())
        return self._steps[-1]


class _Step:
    """What the model generated and called before the next results."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.ended: list[HostedCallEnded] = []
        self.unknown_tools: list[str] = []

    def items(self) -> list[V1Output]:
        items: list[V1Output] = []
        if self.reasoning:
            items.append({"type": "reasoning", "content": "".join(self.reasoning)})
        if self.text:
            items.append({"type": "message", "content": "".join(self.text)})
        items += map(call_item, self.calls())
        for name in self.unknown_tools:
            items.append({"type": "invalid_tool_call", **unknown_tool(name)})
        return items

    def messages(self, *, vision: bool) -> list[Json]:
        return step_messages("".join(self.text), "".join(self.reasoning), self.calls(), vision=vision)

    def calls(self) -> list[HostedCallEnded]:
        """In the order in which the model generated them."""
        return sorted(self.ended, key=lambda each: each.number)


def call_item(ended: HostedCallEnded) -> V1ToolCall | V1InvalidToolCall:
    """A result whose content reports an error is a tool call too; a call without a result is invalid."""
    if ended.output is None:
        return {"type": "invalid_tool_call", **call_failure(ended)}
    return {"type": "tool_call", **call_result(ended, ended.output)}


def call_result(ended: HostedCallEnded, output: ToolOutput) -> CallResult:
    arguments = arguments_object(ended.arguments)
    return {**called_tool(ended.tool), "arguments": arguments, "output": output_text(output)}


def call_failure(ended: HostedCallEnded) -> CallFailure:
    metadata: FailedCall = {
        "type": "failed",
        "tool_name": ended.tool.name,
        "arguments": arguments_object(ended.arguments),
        "provider_info": provider_info(ended.tool),
    }
    return {"reason": ended.error, "metadata": metadata}


def unknown_tool(name: str) -> CallFailure:
    return {
        "reason": f'There is no tool "{name[:64]}".',
        "metadata": {"type": "invalid_name", "tool_name": name},
    }


def called_tool(tool: HostedTool) -> CalledTool:
    return {"tool": tool.name, "provider_info": provider_info(tool)}


def provider_info(tool: HostedTool) -> ProviderInfo:
    reach = tool.use.server.reach
    if isinstance(reach, Endpoint) and reach.public_only:
        return {"type": "ephemeral_mcp", "server_label": tool.label}
    return {"type": "plugin", "plugin_id": f"{MCP_PREFIX}{tool.label}"}


def arguments_object(arguments: str) -> Json:
    """The arguments as an object; empty if they are not one, as when max_tokens cut them off."""
    return read_arguments(arguments) or {}


def output_text(output: ToolOutput) -> str:
    """MCP's content as the text of a JSON array."""
    content = [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image", "data": piece.data, "mimeType": piece.media_type}
        for piece in output.pieces
    ]
    return orjson.dumps(content).decode()
