"""Chats for templates that want turns: one message of a role after the other, and no system messages, or one. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Message = dict[str, Any]

SAID = {"system", "user", "assistant"}


def other_turns(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The same chat with neighbours of a role merged, then with less and less in system messages."""
    later = [message if not at else _by_user(message) for at, message in enumerate(messages)]
    seen = [list(messages)]
    for turned in (messages, later, map(_by_user, messages)):
        if (merged := _merged(turned)) not in seen:
            seen.append(merged)
            yield merged


def with_system_in_last_turn(messages: Sequence[Message]) -> list[Message]:
    """The first message, the system's, at the beginning of what the user said last; unchanged without either."""
    last = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=0)
    if not last or messages[0].get("role") != "system":
        return list(messages)
    return [*messages[1:last], *_merged([_by_user(messages[0]), messages[last]]), *messages[last + 1 :]]


def _by_user(message: Message) -> Message:
    return {**message, "role": "user"} if message.get("role") == "system" else message


def _merged(messages: Iterable[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        if merged and _mergeable(merged[-1], message):
            both = "\n\n".join(filter(None, (merged[-1]["content"], message["content"])))
            merged[-1] = {**merged[-1], **message, "content": both}
        else:
            merged.append(message)
    return merged


def _mergeable(first: Message, second: Message) -> bool:
    return (
        first.get("role") == second.get("role") and first.get("role") in SAID and _is_text(first) and _is_text(second)
    )


def _is_text(message: Message) -> bool:
    return isinstance(message.get("content"), str) and not message.get("tool_calls")
