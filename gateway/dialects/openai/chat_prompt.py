"""What a chat's prompt is made of: OpenAI's messages, and the arguments of the chat template. Pure."""

import math
import re
from collections.abc import Mapping, Sequence

import orjson

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json
from atelier.prompt_end import PromptEnd
from gateway.core.call import tool_call_entry
from gateway.core.images import ImageSource, image_at, read_content
from gateway.dialects.openai.openai_requests import ChatBody, ContentPart, ImageUrl, Message

FIELD = "chat_template_kwargs"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
MOST_ARGUMENTS = 64
MOST_BYTES = 16_384  # of all arguments together, as JSON
LARGEST_NUMBER = 2**63 - 1
# Names that the server sets or that templates call: an argument of such a name would replace them.
RESERVED = frozenset(
    {
        "messages",
        "tools",
        "add_generation_prompt",
        "continue_final_message",
        "bos_token",
        "eos_token",
        "raise_exception",
        "strftime_now",
        "range",
        "dict",
        "lipsum",
        "cycler",
        "joiner",
        "namespace",
    }
)
ROLES = {"developer": "system", "function": "tool"}


def chat_messages(messages: Sequence[Message]) -> list[Json]:
    """Text content as one string; developer as system; function_call, the older format, as tool calls."""
    found: list[Json] = []
    call_id = ""  # of the last function call, whose result is the next function message
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


def content(message: Message, number: int) -> str | list[Json]:
    if isinstance(message.content, str):
        return message.content
    if message.content is None:
        if message.role == "assistant":  # which may have tool calls only
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


def image(entry: str | ImageUrl | None, path: str) -> ImageSource:
    if entry is None:
        raise InvalidRequest(f"{path}: is required", param=path)
    return image_at(entry, path) if isinstance(entry, str) else image_at(entry.url, f"{path}.url")


def prompt_end(body: ChatBody) -> PromptEnd:
    """By two switches of Hugging Face's, of which the first excludes the second."""
    if body.continue_final_message and body.add_generation_prompt:
        message = "add_generation_prompt: cannot be true together with continue_final_message; omit one"
        raise InvalidRequest(message, param="add_generation_prompt")
    if body.continue_final_message:
        return PromptEnd.CONTINUED_MESSAGE
    return PromptEnd.CLOSED_MESSAGE if body.add_generation_prompt is False else PromptEnd.NEW_MESSAGE


def checked_arguments(given: Mapping[str, object]) -> Mapping[str, object]:
    """Raises InvalidRequest that names the argument at fault."""
    if len(given) > MOST_ARGUMENTS:
        raise InvalidRequest(f"{FIELD}: must have at most {MOST_ARGUMENTS} entries", param=FIELD)
    for name, value in given.items():
        path = f"{FIELD}.{name[:64]}"
        if not NAME.fullmatch(name):
            raise InvalidRequest(f"{path}: is not a valid variable name in a template", param=path)
        if name in RESERVED:
            raise InvalidRequest(f"{path}: this name is reserved", param=path)
        if not is_plain(value) and not (isinstance(value, list) and all(map(is_plain, value))):
            raise InvalidRequest(f"{path}: must be text, a number, true, false, null, or a list of these", param=path)
    if len(orjson.dumps(given)) > MOST_BYTES:
        raise InvalidRequest(f"{FIELD}: must have at most {MOST_BYTES} bytes", param=FIELD)
    return given


def is_plain(value: object) -> bool:
    match value:
        case None | str() | bool():
            return True
        case int():
            return abs(value) <= LARGEST_NUMBER
        case float():
            return math.isfinite(value)
    return False
