"""Chat histories of LM Studio's SDK as the core's messages, and the uploaded images that they refer to. Pure.

An image is stored nowhere. Of the two identifiers that LM Studio's clients know, "local:NAME" and "base64:DATA",
the second is the file itself.
"""

from collections.abc import Iterator

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_bytes
from atelier.prompt_end import PromptEnd, end_after
from gateway.core.call import Chat, tool_call_entry
from gateway.core.images import Allowance, EncodedImage, ImageSource, content_of, decode, known_image
from gateway.dialects.lmstudio_sdk.sdk_frames import (
    History,
    HistoryFile,
    HistoryMessage,
    HistoryText,
    HistoryToolCall,
    HistoryToolResult,
    ToolCallRequest,
)

# Tags around reasoning in the text of a reply. They separate the two again when a client sends the text back.
THINK, THOUGHT = "<think>", "</think>"
INLINE_FILE = "base64:"
UPLOAD_FIELD = "contentBase64"


def chat_messages(history: History) -> list[Json]:
    """Messages for chat templates: tool calls in OpenAI's form, one message per tool result.

    Image parts contain their sources. Raises InvalidRequest.
    """
    messages: list[Json] = []
    names: dict[str, str] = {}  # of the called functions, by call id
    for number, message in enumerate(history.messages):
        path = f"history.messages[{number}]"
        if message.role == "tool":
            messages += _results(message, names, path)
            continue
        entry: Json = {"role": message.role, **_content(message, path)}
        if calls := [part.tool_call_request for part in message.content if isinstance(part, HistoryToolCall)]:
            entry["tool_calls"] = [_call(call) for call in calls]
            names |= {call.id: call.name for call in calls if call.id}
        messages.append(entry)
    return messages


def chat_of(history: History) -> tuple[Chat, PromptEnd]:
    """The chat, and how its prompt ends: a last message of the assistant's is continued. Raises InvalidRequest."""
    messages = chat_messages(history)
    return Chat.of(messages), end_after(messages, "history")


def completion_text(history: History) -> str:
    """The text that a completion continues: the texts of all messages, concatenated. Raises UnsupportedField."""
    return "".join(_text_alone(message, f"history.messages[{i}]") for i, message in enumerate(history.messages))


def image_handle(content: str) -> Json:
    """The file handle for an image in base64. Raises InvalidRequest if the image's format is not supported."""
    image = known_image(decode(EncodedImage(content, UPLOAD_FIELD), Allowance()), UPLOAD_FIELD)
    return {"identifier": f"{INLINE_FILE}{content}", "fileType": "image", "sizeBytes": len(image)}


def image_of(identifier: str, path: str) -> EncodedImage:
    """The image behind an identifier from `image_handle`. Raises InvalidRequest for any other identifier."""
    if not identifier.startswith(INLINE_FILE):
        message = f"{path}: unknown file identifier; upload the image to this server (client.prepare_image)."
        raise InvalidRequest(message, param=path)
    return EncodedImage(identifier.removeprefix(INLINE_FILE), path)


def _content(message: HistoryMessage, path: str) -> Json:
    content = content_of(_pieces(message, path), joint="")
    if message.role != "assistant" or not isinstance(content, str):
        return {"content": content}
    if not content.startswith(THINK):
        return {"content": content}
    reasoning, _, answer = content.removeprefix(THINK).partition(THOUGHT)
    return {"content": answer, "reasoning_content": reasoning}


def _pieces(message: HistoryMessage, path: str) -> Iterator[str | ImageSource]:
    for number, part in enumerate(message.content):
        if isinstance(part, HistoryText):
            yield part.text
        elif isinstance(part, HistoryFile):
            yield image_of(part.identifier, f"{path}.content[{number}].identifier")


def _text_alone(message: HistoryMessage, path: str) -> str:
    content = content_of(_pieces(message, path), joint="")
    if not isinstance(content, str):
        raise UnsupportedField(
            f"{path}.content: no images are supported in a text completion.", param=f"{path}.content"
        )
    return content


def _call(call: ToolCallRequest) -> Json:
    arguments = json_bytes(call.arguments or {}, "history", f"history: arguments of {call.name[:64]}")
    return tool_call_entry(call.id or None, call.name, arguments.decode())


def _results(message: HistoryMessage, names: dict[str, str], path: str) -> list[Json]:
    results = [part for part in message.content if isinstance(part, HistoryToolResult)]
    if not results:
        raise InvalidRequest(f"{path}.content: a tool message requires a toolCallResult", param=f"{path}.content")
    return [_result(result, names) for result in results]


def _result(result: HistoryToolResult, names: dict[str, str]) -> Json:
    entry: Json = {"role": "tool", "content": result.content}
    if result.tool_call_id:
        entry["tool_call_id"] = result.tool_call_id
        if name := names.get(result.tool_call_id):
            entry["name"] = name
    return entry
