"""Responses in the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, and_, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from atelier.errors import AlreadyExists
from registry.database import Database
from registry.database_tables import ResponseRow
from registry.responses.response_record import Address, StoredResponse

MOST_TURNS = 10_000  # of one conversation
DELETED_AT_ONCE = 500


class ResponseStore:
    """Every method is one transaction; Unavailable when the database does not answer.

    Times are seconds since the epoch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, response: StoredResponse, expires_at: float, renew_before: float) -> None:
        """Write it; AlreadyExists when its id is another owner's or of another kind.

        What it continues lives as long as it does; those that expire after `renew_before` are not written for that.
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
                    raise AlreadyExists("There is a response of this id already.", param="id")
            if response.previous_id is not None:
                await self._renew(session, address, expires_at, renew_before)

    async def get(self, address: Address, now: float) -> StoredResponse | None:
        async with self._database.transaction() as session:
            row = await session.scalar(select(ResponseRow).where(_is_at(address), ResponseRow.expires_at > now))
            return None if row is None else _to_response(row)

    async def conversation(self, address: Address, now: float, most_bytes: int) -> list[StoredResponse] | None:
        """It and those that it continues, the oldest first; None when one is not there.

        OverflowError when they are longer than `most_bytes` together: nothing of them is read then.
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
        """Whether there was one."""
        async with self._database.transaction() as session:
            query = delete(ResponseRow).where(_is_at(address), ResponseRow.expires_at > now)
            return bool((await session.execute(query.returning(ResponseRow.id))).all())

    async def remove_expired(self, now: float) -> int:
        """How many went; some at a time, so that others' writes do not wait for long."""
        return await self._remove_first(ResponseRow.expires_at <= now, DELETED_AT_ONCE)

    async def remove_unused(self, count: int) -> int:
        """So many of those that were unused for longest."""
        return await self._remove_first(literal(value=True), min(count, DELETED_AT_ONCE))

    async def sizes(self) -> list[int]:
        """Bytes of each, those that were unused for longest first."""
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
    """Ids of the response and of those that it continues; `turn`: 0 of itself, then counted backwards."""
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
    """How many from the beginning are too many: pure."""
    total, count = sum(sizes), 0
    while count < len(sizes) and (len(sizes) - count > most or total > most_bytes):
        total -= sizes[count]
        count += 1
    return count
