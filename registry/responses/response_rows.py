"""Stored responses: the record, and its rows in the database. The body is opaque to the registry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, ColumnElement, and_, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from atelier.errors import AlreadyExists
from registry.database import Database
from registry.database_tables import ResponseRow

MOST_TURNS = 10_000  # of one conversation
DELETED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Address:
    """Of one response: it cannot be found under another owner or kind."""

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


class ResponseStore:
    """Every method is one transaction. Raises Unavailable when the database does not answer.

    Times are seconds since the epoch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, response: StoredResponse, expires_at: float, renew_before: float) -> None:
        """Write it. Raises AlreadyExists if the id has another owner or kind.

        The responses that it continues expire no earlier than it does. Those that expire after `renew_before` are not
        rewritten for that.
        """
        address = response.address
        values = _values(response) | {"expires_at": expires_at}
        async with self._database.transaction() as session:
            known = await session.execute(_columns("owner", "kind").where(ResponseRow.id == address.id))
            match known.one_or_none():
                case None:
                    await session.execute(insert(ResponseRow).values(values))
                case (address.owner, address.kind):
                    await session.execute(update(ResponseRow).where(ResponseRow.id == address.id).values(values))
                case _:
                    raise AlreadyExists("There is a response with this id already.", param="id")
            if response.previous_id is not None:
                await self._renew(session, address, expires_at, renew_before)

    async def get(self, address: Address, now: float) -> StoredResponse | None:
        async with self._database.transaction() as session:
            row = await session.scalar(select(ResponseRow).where(_is_at(address), ResponseRow.expires_at > now))
            return None if row is None else _to_response(row)

    async def conversation(self, address: Address, now: float, most_bytes: int) -> list[StoredResponse] | None:
        """The response and those that it continues, oldest first; None if one is missing.

        Raises OverflowError, before reading bodies, if they have more than `most_bytes` together.
        """
        async with self._database.transaction() as session:
            chain = _chain(address, ResponseRow.expires_at > now)
            sizes = select(func.coalesce(func.sum(ResponseRow.size), 0)).join(chain, chain.c.id == ResponseRow.id)
            if (await session.execute(sizes)).scalar_one() > most_bytes:
                raise OverflowError
            rows = select(ResponseRow).join(chain, chain.c.id == ResponseRow.id).order_by(chain.c.turn.desc())
            responses = [_to_response(row) for row in await session.scalars(rows)]
        whole = responses and responses[0].previous_id is None
        return responses if whole else None

    async def remove(self, address: Address, now: float) -> bool:
        """Whether it existed."""
        async with self._database.transaction() as session:
            query = delete(ResponseRow).where(_is_at(address), ResponseRow.expires_at > now)
            return bool((await session.execute(query.returning(ResponseRow.id))).all())

    async def remove_expired(self, now: float) -> int:
        """The number deleted; at most DELETED_AT_ONCE, so that other writes wait briefly."""
        return await self._remove_first(ResponseRow.expires_at <= now, DELETED_AT_ONCE)

    async def remove_unused(self, count: int) -> int:
        """Delete up to `count` of those unused for longest; returns the number deleted."""
        return await self._remove_first(literal(value=True), min(count, DELETED_AT_ONCE))

    async def sizes(self) -> list[int]:
        """Bytes of each, those unused for longest first."""
        async with self._database.transaction() as session:
            return list(await session.scalars(_columns("size").order_by(ResponseRow.expires_at)))

    async def _remove_first(self, condition: ColumnElement[bool], most: int) -> int:
        async with self._database.transaction() as session:
            ids = select(ResponseRow.id).where(condition).order_by(ResponseRow.expires_at).limit(most)
            removed = await session.execute(
                delete(ResponseRow).where(ResponseRow.id.in_(ids)).returning(ResponseRow.id)
            )
            return len(removed.all())

    @staticmethod
    async def _renew(session: AsyncSession, address: Address, expires_at: float, renew_before: float) -> None:
        chain = _chain(address, literal(value=True))
        due = and_(ResponseRow.id.in_(select(chain.c.id)), ResponseRow.expires_at < renew_before)
        await session.execute(update(ResponseRow).where(due).values(expires_at=expires_at))


def _chain(address: Address, condition: ColumnElement[bool]) -> CTE:
    """Ids of the response and of those that it continues. `turn`: 0 for itself, then counted backwards."""
    first = select(ResponseRow.id, ResponseRow.previous_id, literal(0).label("turn"))
    chain = first.where(_is_at(address), condition).cte("chain", recursive=True)
    earlier = select(ResponseRow.id, ResponseRow.previous_id, chain.c.turn + 1).where(
        ResponseRow.id == chain.c.previous_id,
        ResponseRow.owner == address.owner,
        ResponseRow.kind == address.kind,
        condition,
        chain.c.turn < MOST_TURNS,
    )
    return chain.union_all(earlier)


def _is_at(address: Address) -> ColumnElement[bool]:
    return and_(ResponseRow.id == address.id, ResponseRow.owner == address.owner, ResponseRow.kind == address.kind)


def _columns(*names: str) -> Any:
    return select(*(getattr(ResponseRow, name) for name in names))


def _values(response: StoredResponse) -> dict[str, Any]:
    return {
        "id": response.address.id,
        "owner": response.address.owner,
        "kind": response.address.kind,
        "previous_id": response.previous_id,
        "created_at": response.created_at,
        "written_at": response.written_at,
        "size": len(response.body),
        "body": response.body,
    }


def _to_response(row: ResponseRow) -> StoredResponse:
    address = Address(row.id, row.owner, row.kind)
    return StoredResponse(address, row.previous_id, row.body, row.created_at, row.written_at)


def excess(sizes: Sequence[int], most: int, most_bytes: int) -> int:
    """How many to delete, from the start of the list. Pure."""
    total, count = sum(sizes), 0
    while count < len(sizes) and (len(sizes) - count > most or total > most_bytes):
        total -= sizes[count]
        count += 1
    return count
