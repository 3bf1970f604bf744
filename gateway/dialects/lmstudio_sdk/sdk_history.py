"""LM Studio's chats to the core's messages. Pure."""

from collections.abc import Iterator

import orjson

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from gateway.core.images import ImageSource, content_of
from gateway.dialects.lmstudio_sdk.sdk_files import image_of
from gateway.dialects.lmstudio_sdk.sdk_frames import (
    FilePart,
    History,
    Message,
    TextPart,
    ToolCallPart,
    ToolCallRequest,
    ToolResultPart,
)

# Around reasoning in the text of an answer. What a client puts into its history again is told apart by them.
THINK, THOUGHT = "<think>", "</think>"


def chat_messages(history: History) -> list[Json]:
    """As chat templates take them: calls as OpenAI writes them, one message for each result.

    Image parts have their sources with them.
    """
    messages: list[Json] = []
    names: dict[str, str] = {}  # of the functions that were called, by the calls' ids
    for number, message in enumerate(history.messages):
        path = f"history.messages[{number}]"
        if message.role == "tool":
            messages += _results(message, names, path)
            continue
        entry: Json = {"role": message.role, **_said(message, path)}
        if calls := [part.tool_call_request for part in message.content if isinstance(part, ToolCallPart)]:
            entry["tool_calls"] = [_call(call) for call in calls]
            names |= {call.id: call.name for call in calls if call.id}
        messages.append(entry)
    return messages


def completion_text(history: History) -> str:
    """What a text completion continues: the messages' texts, one after the other."""
    return "".join(_text_alone(message, f"history.messages[{i}]") for i, message in enumerate(history.messages))


def _said(message: Message, path: str) -> Json:
    content = content_of(_pieces(message, path), joint="")
    if message.role != "assistant" or not isinstance(content, str):
        return {"content": content}
    if not content.startswith(THINK) or THOUGHT not in content:
        return {"content": content}
    reasoning, _, answer = content.removeprefix(THINK).partition(THOUGHT)
    return {"content": answer, "reasoning_content": reasoning}


def _pieces(message: Message, path: str) -> Iterator[str | ImageSource]:
    for number, part in enumerate(message.content):
        if isinstance(part, TextPart):
            yield part.text
        elif isinstance(part, FilePart):
            yield image_of(part.identifier, f"{path}.content[{number}].identifier")


def _text_alone(message: Message, path: str) -> str:
    content = content_of(_pieces(message, path), joint="")
    if not isinstance(content, str):
        raise UnsupportedField(f"{path}.content: a text that is continued has no images.", param=f"{path}.content")
    return content


def _call(call: ToolCallRequest) -> Json:
    try:
        arguments = orjson.dumps(call.arguments or {}).decode()
    except TypeError as error:  # a number of more than 64 bits
        raise InvalidRequest(f"history: arguments of {call.name[:64]}: {error}", param="history") from None
    identified = {"id": call.id} if call.id else {}
    return {**identified, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _results(message: Message, names: dict[str, str], path: str) -> list[Json]:
    results = [part for part in message.content if isinstance(part, ToolResultPart)]
    if not results:
        raise InvalidRequest(f"{path}.content: a tool's message needs a toolCallResult", param=f"{path}.content")
    return [_result(result, names) for result in results]


def _result(result: ToolResultPart, names: dict[str, str]) -> Json:
    entry: Json = {"role": "tool", "content": result.content}
    if result.tool_call_id:
        entry["tool_call_id"] = result.tool_call_id
        if name := names.get(result.tool_call_id):
            entry["name"] = name
    return entry
