"""The registry's database: opened, migrated, and used in transactions with a bounded wait."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from atelier.errors import Unavailable

BUSY_SECONDS = 3.0  # for which a statement waits for another process's lock

_log = structlog.get_logger(__name__)


class Database:
    """Owns the engine. A write is one short transaction, which is committed or raises Unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction. Raises Unavailable if the database is locked, full or missing."""
        try:
            async with self._sessions.begin() as session:
                yield session
        except IntegrityError:
            raise  # a bug of ours: retrying would not help
        except (DBAPIError, PoolTimeout) as error:
            _log.error("database_failed", reason=str(getattr(error, "orig", None) or error))
            raise Unavailable("The registry's database does not respond; nothing was changed. Try again.") from error

    async def close(self) -> None:
        await self._engine.dispose()


async def open_database(path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Database:
    """The database in this file, readable by this user only, with all migrations applied.

    Raises Unavailable if it stays locked, is damaged, or was written by a newer version.
    """
    _make_private_file(path)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": busy_seconds})
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
    except (DBAPIError, CommandError) as error:
        await engine.dispose()
        reason = str(getattr(error, "orig", None) or error)
        raise Unavailable(
            f"The database {path} cannot be used: {reason}. Move it elsewhere to start with a new one."
        ) from error
    return Database(engine)


def _make_private_file(path: Path) -> None:
    """SQLite gives its other files the same permissions."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # it contains the workers' tokens
    os.close(descriptor)


def _set_pragmas(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _upgrade(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
