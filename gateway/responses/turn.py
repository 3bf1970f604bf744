"""One request for a response, with what it goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.call import Call
from gateway.responses.schema import ResponseBody


@dataclass(frozen=True, slots=True)
class Turn:
    """`items`: of its own input, without what it continues."""

    id: str
    owner: str
    body: ResponseBody
    items: Sequence[dict[str, Any]]
    call: Call
    created_at: int

    @property
    def stored(self) -> bool:
        """Whether it is to be."""
        return self.body.store is not False
