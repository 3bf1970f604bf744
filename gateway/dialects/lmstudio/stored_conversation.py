"""Conversations that clients continue: each response is stored with its own turn, and refers to the previous one.

So any response can be continued more than once, which branches the conversation.
"""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import structlog

from atelier.errors import AtelierError, InvalidRequest, ResponseNotFound
from atelier.json_types import Json
from gateway.core.call import joined
from gateway.core.images import ImageSource, image_within, read_content
from gateway.dialects.lmstudio.lmstudio_requests import ChatInput, InputItem, V1ChatBody
from gateway.fleet.registry_client import ResponseStore

KIND = "lmstudio"
CONTINUES = "continues"  # in a stored message: whether it continues the assistant's message before it
RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """What one request adds to a conversation. `system_prompt`: from this turn on; None: unchanged."""

    system_prompt: str | None
    messages: list[Json]

    def to_json(self) -> bytes:
        return orjson.dumps({"system_prompt": self.system_prompt, "messages": self.messages})

    @classmethod
    def from_json(cls, body: bytes) -> "StoredTurn":
        values = orjson.loads(body)
        return cls(values["system_prompt"], values["messages"])

    def answered(self, messages: Sequence[Json]) -> "StoredTurn":
        """The turn with the model's messages, reasoning included: whether to drop it is up to the chat template."""
        if self.messages[-1]["role"] == "assistant":
            messages = [{**messages[0], CONTINUES: True}, *messages[1:]]
        return StoredTurn(self.system_prompt, [*self.messages, *messages])


def new_turn(body: V1ChatBody) -> StoredTurn:
    """With the beginning of the answer, if the input has one. Raises InvalidRequest."""
    given = body.input
    if isinstance(given, str) or given[-1].role != "assistant":
        return StoredTurn(body.system_prompt, [{"role": "user", "content": input_content(given)}])
    *asked, begun = given
    path = f"input[{len(asked)}]"
    if begun.type == "image":
        raise InvalidRequest(f"{path}.type: an answer begins with text", param=f"{path}.type")
    answer = {"role": "assistant", "content": _input_item(begun, path)["content"]}
    if asked:
        return StoredTurn(body.system_prompt, [{"role": "user", "content": input_content(asked)}, answer])
    if body.previous_response_id is None:
        raise InvalidRequest("input: must have the user's message before the beginning of the answer", param="input")
    return StoredTurn(body.system_prompt, [{**answer, CONTINUES: True}])


def input_content(input: ChatInput) -> str | list[Json]:
    """The user's message in the stored form, in which an image is a data URL."""
    if isinstance(input, str):
        return input
    if (number := next((at for at, item in enumerate(input) if item.role == "assistant"), None)) is not None:
        path = f"input[{number}].role"
        raise InvalidRequest(f"{path}: only the last item may be the assistant's", param=path)
    items = [_input_item(item, f"input[{number}]") for number, item in enumerate(input)]
    if any(item["type"] == "image" for item in items):
        return items
    return "\n".join(item["content"] for item in items)


def _input_item(item: InputItem, path: str) -> Json:
    name = "data_url" if item.type == "image" else "content"
    if (value := getattr(item, name)) is None:
        raise InvalidRequest(f"{path}.{name}: is required", param=f"{path}.{name}")
    return {"type": "image" if item.type == "image" else "text", name: value}


def stored_message(message: Json) -> Json:
    """A message for chat templates in the stored form."""
    content = message["content"]
    return message if isinstance(content, str) else {**message, "content": [_stored_part(part) for part in content]}


def _stored_part(part: Json) -> Json:
    if part["type"] == "text":
        return {"type": "text", "content": part["text"]}
    return {"type": "image", "data_url": f"data:;base64,{part['source'].base64}"}


def chat_messages(turns: Sequence[StoredTurn]) -> list[Json]:
    """The conversation as messages for chat templates. The last turn is the request's.

    The latest system prompt applies to all of it; an empty one removes it.
    """
    system_prompt, messages = None, list[Json]()
    for turn in turns:
        system_prompt = turn.system_prompt if turn.system_prompt is not None else system_prompt
        path = "input" if turn is turns[-1] else ""
        for stored in turn.messages:
            message = {**stored, "content": read_content(stored["content"], path, _piece)}
            continues = message.pop(CONTINUES, False) and messages and messages[-1]["role"] == "assistant"
            messages = [*messages[:-1], joined(messages[-1], message)] if continues else [*messages, message]
    return [{"role": "system", "content": system_prompt}, *messages] if system_prompt else messages


def _piece(item: Json, path: str) -> str | ImageSource:
    """`path`: empty for an item of an earlier turn."""
    if item["type"] == "image":
        return image_within(item["data_url"], f"{path}.data_url" if path else "previous_response_id")
    text: str = item["content"]
    return text


class Conversations:
    """Finds and stores turns. Each belongs to an owner."""

    def __init__(self, stored: ResponseStore) -> None:
        self._stored = stored

    async def before(self, previous_id: str | None, owner: str) -> list[StoredTurn]:
        """The turns up to and including this response's, oldest first. Raises ResponseNotFound, Unavailable."""
        if previous_id is None:
            return []
        try:
            if not RESPONSE_ID.fullmatch(previous_id):
                raise ResponseNotFound()
            return [StoredTurn.from_json(each.body) for each in await self._stored.conversation(previous_id, owner)]
        except ResponseNotFound as error:
            raise ResponseNotFound(error.message, param="previous_response_id") from None

    async def store(self, turn: StoredTurn, previous_id: str | None, owner: str) -> str | None:
        """The response's id, or None if it cannot be stored now: the client still receives the reply."""
        id = f"resp_{uuid.uuid4().hex}"
        try:
            await self._stored.put(id, owner, turn.to_json(), created_at=time.time(), previous_id=previous_id)
        except AtelierError as error:
            _log.warning("response_not_kept", error=error.code)
            return None
        return id
