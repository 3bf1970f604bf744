"""A response as the registry keeps it: who may have it, and bytes that mean something to a gateway alone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Of one response: nobody finds it under another owner or kind."""

    id: str
    owner: str
    kind: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    address: Address
    previous_id: str | None  # of the response that it continues
    body: bytes
    created_at: float  # seconds since the epoch
    written_at: float = 0.0  # the last time, by the registry's clock
