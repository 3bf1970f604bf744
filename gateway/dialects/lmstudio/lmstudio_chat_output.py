"""The output of LM Studio's v1 chat as it grows: the items for the client, and the messages to store."""

from atelier.json_types import Json
from gateway.core.events import Delta, Event, HostedCallBegun, HostedCallEnded, Reasoning, ToolCallDelta
from gateway.dialects.lmstudio.lmstudio_chat_replies import V1Output, V1Text, call_item, unknown_tool
from gateway.dialects.lmstudio.stored_conversation import stored_message
from gateway.tools.loop.step_messages import step_messages


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
