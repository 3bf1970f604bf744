"""OpenAI's messages as chat templates take them. Pure."""

from collections.abc import Sequence

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from gateway.core.call import tool_call_entry
from gateway.core.images import ImageSource, image_at, read_content
from gateway.dialects.openai.openai_requests import ContentPart, ImageUrl, Message


def chat_messages(messages: Sequence[Message]) -> list[Json]:
    """Content in one string unless it has images; developer as system; the older function calls as tool calls."""
    found: list[Json] = []
    call_id = ""  # of the last function call, which the next function message answers
    for number, message in enumerate(messages):
        if message.function_call is not None:
            call_id = f"call_{number}"
        found.append(message_json(message, number, call_id))
    return found


def message_json(message: Message, number: int, call_id: str = "") -> Json:
    entry: Json = {"role": ROLES.get(message.role, message.role), "content": content(message, number)}
    for name in ("name", "reasoning_content", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            entry[name] = value
    if message.tool_calls:
        entry["tool_calls"] = [
            tool_call_entry(call.id, call.function.name, call.function.arguments) for call in message.tool_calls
        ]
    elif message.function_call is not None:
        function = message.function_call
        entry["tool_calls"] = [tool_call_entry(call_id, function.name, function.arguments)]
    if message.role == "function" and call_id:
        entry["tool_call_id"] = call_id
    return entry


ROLES = {"developer": "system", "function": "tool"}


def content(message: Message, number: int) -> str | list[Json]:
    if message.content is None:
        if message.role == "assistant":  # it may consist of tool calls alone
            return ""
        raise InvalidRequest(f"messages[{number}].content: is required", param=f"messages[{number}].content")
    return read_content(message.content, f"messages[{number}].content", piece)


def piece(part: ContentPart, path: str) -> str | ImageSource:
    if part.type == "image_url":
        return image(part.image_url, f"{path}.image_url")
    if part.type not in ("text", "refusal"):
        raise UnsupportedField(
            f'{path}: parts of type "{part.type[:40]}" are not supported; send text or images.', param=path
        )
    if (text := getattr(part, part.type)) is None:
        raise InvalidRequest(f"{path}.{part.type}: is required", param=f"{path}.{part.type}")
    return str(text)


def image(given: str | ImageUrl | None, path: str) -> ImageSource:
    if given is None:
        raise InvalidRequest(f"{path}: is required", param=path)
    return image_at(given, path) if isinstance(given, str) else image_at(given.url, f"{path}.url")
