"""Stored responses: storing, retrieving and continuing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import orjson
import structlog

from atelier.errors import AtelierError, InvalidRequest, PreviousResponseNotFound, ResponseNotFound
from atelier.json_types import Json
from gateway.dialects.responses.item_requests import Input
from gateway.dialects.responses.response_items import response_of
from gateway.dialects.responses.response_object import UNFINISHED, ResponseObject
from gateway.dialects.responses.response_turn import Turn
from gateway.dialects.responses.stored_items import referenced_ids
from gateway.fleet.registry_client import ResponseStore

CONTINUABLE = ("completed", "incomplete")
MOST_REFERENCED = 64  # stored responses that one input may refer to
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """A stored response, and the items of its request's own input."""

    response: ResponseObject
    items: list[Json]

    @property
    def unfinished(self) -> bool:
        return self.response["status"] in UNFINISHED

    @property
    def all_items(self) -> list[Json]:
        return [*self.items, *cast(list[Json], self.response["output"])]


def record_json(response: ResponseObject, items: list[Json]) -> bytes:
    return orjson.dumps({"response": response, "input": items})


def read_record(body: bytes) -> Record:
    found = orjson.loads(body)
    return Record(found["response"], found["input"])


class Archive:
    """Translates between stored bytes and turns. Raises Unavailable without a connection to the registry."""

    def __init__(self, stored: ResponseStore) -> None:
        self._stored = stored

    async def earlier(self, previous_id: str | None, owner: str) -> list[Json]:
        """Every item of the conversation that is continued, the oldest first.

        Raises PreviousResponseNotFound and InvalidRequest.
        """
        if previous_id is None:
            return []
        try:
            records = await self._conversation(previous_id, owner)
        except ResponseNotFound as error:
            raise PreviousResponseNotFound(error.message, param="previous_response_id") from None
        status = records[-1].response["status"]
        if status not in CONTINUABLE:
            raise InvalidRequest(
                f"previous_response_id: the response is {status}; only a finished response can be continued",
                param="previous_response_id",
            )
        return _items(records)

    async def referenced(self, given: Input, owner: str) -> dict[str, Json]:
        """The existing items that the input refers to, by id. Raises InvalidRequest if there are too many."""
        ids = dict.fromkeys(found for id in referenced_ids(given) if (found := response_of(id)))
        if len(ids) > MOST_REFERENCED:
            raise InvalidRequest(f"input: must refer to items of at most {MOST_REFERENCED} responses", param="input")
        items: dict[str, Json] = {}
        for id in ids:
            try:
                record = await self.get(id, owner)
            except ResponseNotFound:
                continue  # reported where the missing item is used
            items |= {item["id"]: item for item in record.all_items}
        return items

    async def keep(self, turn: Turn, response: ResponseObject) -> ResponseObject:
        """The finished response for its client, whose `store` reports whether it was stored.

        A response that cannot be stored is returned all the same: the answer is worth more than its record.
        """
        if not turn.stored:
            return response
        try:
            await self.put(turn, response)
        except AtelierError as error:
            _log.warning("response_not_stored", id=turn.id, reason=error.code)
            return {**response, "store": False}
        return response

    async def put(self, turn: Turn, response: ResponseObject) -> None:
        """The response is stored when this returns."""
        await self._stored.put(
            turn.id,
            turn.owner,
            record_json(response, list(turn.items)),
            created_at=turn.created_at,
            previous_id=turn.body.previous_response_id,
        )

    async def get(self, id: str, owner: str) -> Record:
        """Raises ResponseNotFound."""
        return read_record((await self._stored.get(id, owner)).body)

    async def delete(self, id: str, owner: str) -> None:
        """Raises ResponseNotFound."""
        await self._stored.delete(id, owner)

    async def input_of(self, id: str, owner: str) -> list[Json]:
        """Every item that the response answered, the oldest first. Raises ResponseNotFound."""
        *earlier, last = await self._conversation(id, owner)
        return [*_items(earlier), *last.items]

    async def _conversation(self, id: str, owner: str) -> list[Record]:
        return [read_record(each.body) for each in await self._stored.conversation(id, owner)]


def _items(records: Sequence[Record]) -> list[Json]:
    return [item for record in records for item in record.all_items]
