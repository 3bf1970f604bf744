"""A conversation's items as the messages that chat templates take. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atelier.json_types import Json
from gateway.core.call import joined, tool_call_entry, tool_message
from gateway.core.images import ImageSource, image_at, read_content
from gateway.dialects.responses.hosted_call_items import Consent, outcome_text
from gateway.tools.loop.toolset import Toolset

UNANSWERED = "This call has not run: nobody has agreed to it yet."
DECLINED = "This call has not run: the user declined it."


@dataclass(frozen=True, slots=True)
class ServedCalls:
    """What is known of the calls of servers' tools. `results`: of approved calls, by ids of the approval requests."""

    consent: Consent = field(default_factory=Consent)
    toolset: Toolset | None = None
    results: Mapping[str, Json] = field(default_factory=dict)

    def messages(self, item: Json) -> tuple[Json, Json] | None:
        """The call and its tool message; None if the item is not part of the prompt."""
        if item["type"] == "mcp_call":
            if item.get("status") == "incomplete":  # cut off: its arguments are not valid JSON, and it did not run
                return None
            return self._call(item), self._result(item, outcome_text(item))
        if item["id"] in self.consent.ran:  # the call has an item of its own
            return None
        return self._call(item), self.results.get(item["id"]) or self._result(item, self._refusal(item["id"]))

    def _call(self, item: Json) -> Json:
        return tool_call_entry(item["id"], self._shown(item), item["arguments"])

    def _result(self, item: Json, content: str) -> Json:
        return tool_message(item["id"], self._shown(item), content)

    def _refusal(self, id: str) -> str:
        answer = self.consent.answers.get(id)
        if answer is None or answer["approve"]:  # it is about to run, or was never run
            return UNANSWERED
        return f"{DECLINED} {answer['reason']}" if answer.get("reason") else DECLINED

    def _shown(self, item: Json) -> str:
        """The name that the model knows the tool by now, or else the server's."""
        tool = self.toolset.find(item["server_label"], item["name"]) if self.toolset else None
        return tool.shown if tool else item["name"]


ROLES = {"developer": "system"}
OPEN = ("incomplete", "in_progress")  # statuses of what the next item, or the response, continues


def is_open(item: Json) -> bool:
    """Whether the item is a part of the model's answer that was cut off."""
    return item.get("status") in OPEN and (item["type"] == "reasoning" or item.get("role") == "assistant")


def chat_messages(
    instructions: str | None, items: Sequence[Json], earlier: int = 0, served: ServedCalls | None = None
) -> list[Json]:
    """A model's reasoning, text and calls form one message, as templates expect; so does a text with its continuation.

    `earlier`: how many of the items precede the request's own input.
    """
    served = served or ServedCalls()
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    reasoning = ""  # before the message or the call that it belongs to
    cut_off = False  # the last message
    for number, item in enumerate(items, -earlier):
        match item["type"]:
            case "reasoning":
                reasoning += reasoning_text(item)
                continue
            case "message":
                role = ROLES.get(item["role"], item["role"])
                message = {"role": role, "content": read_content(item["content"], _path(number, "content"), piece)}
                if cut_off and role == "assistant":
                    message = joined(messages.pop(), message)
                messages.append(message)
                cut_off = is_open(item)
            case "mcp_list_tools" | "mcp_approval_response":
                continue
            case "mcp_call" | "mcp_approval_request":
                if (messages_of_call := served.messages(item)) is None:
                    continue
                call, result = messages_of_call
                _add_call(messages, call, reasoning)
                messages.append(result)
            case "function_call":
                if item.get("status") == "incomplete":  # cut off: its arguments are not valid JSON, and it did not run
                    continue
                _add_call(messages, tool_call_entry(item["call_id"], item["name"], item["arguments"]), reasoning)
            case "function_call_output":
                output = read_content(item["output"], _path(number, "output"), piece)
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
        if reasoning and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = reasoning
        reasoning, cut_off = "", cut_off and item["type"] == "message"
    if reasoning and is_open(items[-1]):
        messages.append({"role": "assistant", "content": "", "reasoning_content": reasoning})
    return messages


def _add_call(messages: list[Json], call: Json, reasoning: str) -> None:
    """Add the call to the last assistant message; reasoning begins a new one."""
    if reasoning or not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", []).append(call)
    if reasoning:
        messages[-1]["reasoning_content"] = reasoning


def _path(number: int, name: str) -> str:
    """The path of an item's field; "" for items that are not in the request."""
    return f"input[{number}].{name}" if number >= 0 else ""


def piece(part: Json, path: str) -> str | ImageSource:
    if part["type"] == "input_image":
        return image_at(part["image_url"], f"{path}.image_url" if path else "previous_response_id")
    text: str = part["refusal"] if part["type"] == "refusal" else part["text"]
    return text


def reasoning_text(item: Json) -> str:
    """The reasoning itself, or its summary if the item has only that."""
    return "\n".join(part["text"] for part in item.get("content") or item["summary"])
