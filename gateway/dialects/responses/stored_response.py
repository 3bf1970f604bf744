"""What is stored of a response: the object that clients get, and the items of its own input. Pure."""

from dataclasses import dataclass

import orjson

from atelier.json_types import Json
from gateway.dialects.responses.response_object import UNFINISHED


@dataclass(frozen=True, slots=True)
class Record:
    response: Json
    items: list[Json]

    @property
    def unfinished(self) -> bool:
        return self.response["status"] in UNFINISHED

    @property
    def all_items(self) -> list[Json]:
        return [*self.items, *self.response["output"]]


def record_json(response: Json, items: list[Json]) -> bytes:
    return orjson.dumps({"response": response, "input": items})


def read_record(body: bytes) -> Record:
    found = orjson.loads(body)
    return Record(found["response"], found["input"])
