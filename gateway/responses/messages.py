"""A conversation's items as the messages that chat templates take. Pure."""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

ROLES = {"developer": "system"}


def chat_messages(instructions: str | None, items: Sequence[Json]) -> list[Json]:
    """What a model thought and called belongs to one message with what it said, as templates have it."""
    messages: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    reasoning = ""  # before the message or the call that it led to
    for item in items:
        match item["type"]:
            case "reasoning":
                reasoning += reasoning_text(item)
                continue
            case "message":
                role = ROLES.get(item["role"], item["role"])
                messages.append({"role": role, "content": content_text(item["content"])})
            case "function_call":
                if item.get("status") == "incomplete":  # cut off: its arguments are no JSON, and nobody ran it
                    continue
                _caller(messages, reasoning)["tool_calls"].append(_call(item))
            case "function_call_output":
                content = content_text(item["output"])
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        if reasoning and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = reasoning
        reasoning = ""
    return messages


def _caller(messages: list[Json], reasoning: str) -> Json:
    """The message that the next call belongs to; new thoughts begin a new one."""
    if reasoning or not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", [])
    return messages[-1]


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def content_text(content: str | Sequence[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in content)


def reasoning_text(item: Json) -> str:
    """The thoughts themselves where they are there, or else their summary."""
    return "\n".join(part["text"] for part in item.get("content") or item["summary"])
