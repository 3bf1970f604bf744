"""Responses that their clients may ask for again or continue, kept by the registry: any gateway finds them."""

from dataclasses import dataclass

from gateway.fleet.registry_client import RegistryClient
from protos import registry_pb2 as pb


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """`body`: JSON in the form of the dialect that `kind` names, "openai" or "lmstudio"."""

    id: str
    owner: str  # as gateway.dialects.reply.owner_of says
    kind: str
    body: bytes
    created_at: float  # seconds since the epoch
    previous_id: str | None = None  # of the response that it continues
    age: float = 0.0  # seconds since it was last written, when it was read


class Stored:
    """The responses of one dialect. Unavailable when the registry is away; ResponseNotFound, for others' as well."""

    def __init__(self, registry: RegistryClient, kind: str) -> None:
        self._registry = registry
        self._kind = kind

    async def put(self, id: str, owner: str, body: bytes, *, created_at: float, previous_id: str | None = None) -> None:
        """Written when this returns; one of the same id is replaced. What it continues lives as long as it does."""
        message = pb.StoredResponse(
            id=id, owner=owner, kind=self._kind, body=body, created_at=created_at, previous_id=previous_id
        )
        await self._registry.put_response(message)

    async def get(self, id: str, owner: str) -> StoredResponse:
        return _read(await self._registry.get_response(self._request(id, owner)))

    async def conversation(self, id: str, owner: str) -> list[StoredResponse]:
        """The response and all that it continues, the oldest first; ResponseNotFound when one of them is gone."""
        return [_read(each) for each in await self._registry.get_conversation(self._request(id, owner))]

    async def delete(self, id: str, owner: str) -> None:
        """What it continues stays, and so does what continues it, which then cannot be gone on with."""
        await self._registry.delete_response(self._request(id, owner))

    def _request(self, id: str, owner: str) -> pb.ResponseRequest:
        return pb.ResponseRequest(id=id, owner=owner, kind=self._kind)


def _read(message: pb.StoredResponse) -> StoredResponse:
    return StoredResponse(
        message.id,
        message.owner,
        message.kind,
        message.body,
        message.created_at,
        message.previous_id if message.HasField("previous_id") else None,
        message.age_seconds,
    )
