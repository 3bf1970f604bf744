"""Downloads in the database: rows to dataclasses and back."""

import dataclasses

from sqlalchemy import delete, select

from atelier.errors import BY_CODE, AtelierError
from atelier.json_types import Json
from registry.database import Database
from registry.database_tables import DownloadRow
from registry.hub.download_record import Download, DownloadState
from registry.hub.hub_listing import RepoFile

PLAIN = ("id", "reference", "source", "repo", "commit", "licence", "started_at", "model_key", "finished_at")


class DownloadStore:
    """Every method is one transaction. Raises Unavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Download]:
        """Oldest first."""
        async with self._database.transaction() as session:
            rows = await session.scalars(select(DownloadRow).order_by(DownloadRow.started_at, DownloadRow.id))
            return [_to_download(row) for row in rows]

    async def save(self, download: Download) -> None:
        async with self._database.transaction() as session:
            await session.merge(_to_row(download))

    async def remove(self, download_id: str) -> None:
        async with self._database.transaction() as session:
            await session.execute(delete(DownloadRow).where(DownloadRow.id == download_id))


def _to_row(download: Download) -> DownloadRow:
    return DownloadRow(
        **{name: getattr(download, name) for name in PLAIN},
        files=[dataclasses.asdict(file) for file in download.files],
        state=download.state.name,
        error=_to_json(download.error),
    )


def _to_download(row: DownloadRow) -> Download:
    state = DownloadState[row.state]
    return Download(
        **{name: getattr(row, name) for name in PLAIN},
        files=tuple(RepoFile(**file) for file in row.files),
        state=state,
        error=_to_error(row.error),
        done_bytes=sum(file["size"] for file in row.files) if state is DownloadState.COMPLETED else 0,
    )


def _to_json(error: AtelierError | None) -> Json | None:
    return {"code": error.code, "message": error.message, "param": error.param} if error else None


def _to_error(values: Json | None) -> AtelierError | None:
    if values is None:
        return None
    return BY_CODE.get(values["code"], AtelierError)(values["message"], param=values["param"])
