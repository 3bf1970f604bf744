"""Chats that go on: each response is kept with its own turn, and the turns before it are found by it.

So any response can be continued, more than once: that is how a chat branches.
"""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import structlog

from atelier.errors import AtelierError, ResponseNotFound
from atelier.json_types import Json
from gateway.core.images import read_content
from gateway.dialects.lmstudio.lmstudio_chat import input_content, kept_piece
from gateway.dialects.lmstudio.lmstudio_requests import V1ChatBody
from gateway.fleet.registry_client import ResponseStore

KIND = "lmstudio"
RESPONSE_ID = re.compile(r"resp_[0-9a-f]{32}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request adds to a chat. `system_prompt`: the chat's from here on; None: as before."""

    system_prompt: str | None
    messages: list[Json]

    def to_json(self) -> bytes:
        return orjson.dumps({"system_prompt": self.system_prompt, "messages": self.messages})

    @classmethod
    def from_json(cls, body: bytes) -> "Turn":
        values = orjson.loads(body)
        return cls(values["system_prompt"], values["messages"])

    def answered(self, messages: Sequence[Json]) -> "Turn":
        """With what the model answered; its template decides what becomes of earlier reasoning."""
        return Turn(self.system_prompt, [*self.messages, *messages])


def asked(body: V1ChatBody) -> Turn:
    return Turn(body.system_prompt, [{"role": "user", "content": input_content(body.input)}])


def chat_messages(turns: Sequence[Turn]) -> list[Json]:
    """The whole chat, of which the last turn is asked now, with the newest system prompt that was given.

    An empty one takes it away.
    """
    system_prompt, messages = None, list[Json]()
    for turn in turns:
        system_prompt = turn.system_prompt if turn.system_prompt is not None else system_prompt
        path = "input" if turn is turns[-1] else ""
        messages += [
            {**message, "content": read_content(message["content"], path, kept_piece)} for message in turn.messages
        ]
    return [{"role": "system", "content": system_prompt}, *messages] if system_prompt else messages


class Conversations:
    """Finds and keeps turns, each for its owner."""

    def __init__(self, stored: ResponseStore) -> None:
        self._stored = stored

    async def before(self, previous_id: str | None, owner: str) -> list[Turn]:
        """The turns up to this response's, the oldest first; ResponseNotFound, Unavailable."""
        if previous_id is None:
            return []
        try:
            if not RESPONSE_ID.fullmatch(previous_id):
                raise ResponseNotFound()
            return [Turn.from_json(each.body) for each in await self._stored.conversation(previous_id, owner)]
        except ResponseNotFound as error:
            raise ResponseNotFound(error.message, param="previous_response_id") from None

    async def keep(self, turn: Turn, previous_id: str | None, owner: str) -> str | None:
        """The id under which this turn is found; None when it cannot be kept now: the answer is not lost for that."""
        id = f"resp_{uuid.uuid4().hex}"
        try:
            await self._stored.put(id, owner, turn.to_json(), created_at=time.time(), previous_id=previous_id)
        except AtelierError as error:
            _log.warning("response_not_kept", error=error.code)
            return None
        return id
