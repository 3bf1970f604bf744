"""The database's tables, in SQL that SQLite and PostgreSQL both support."""

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from atelier.json_types import Json


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )


class ModelRow(Base):
    """A model that was imported, or found in the models folder."""

    __tablename__ = "models"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    path: Mapped[str] = mapped_column(Text, unique=True)
    source: Mapped[str] = mapped_column(Text)
    display_name: Mapped[str] = mapped_column(Text)
    facts: Mapped[Json] = mapped_column(JSON)
    size: Mapped[int] = mapped_column(BigInteger)
    changed: Mapped[int] = mapped_column(BigInteger)
    imported_at: Mapped[float] = mapped_column(Float(53))
    provenance: Mapped[Json | None] = mapped_column(JSON)
    default_preset: Mapped[str | None] = mapped_column(String(255))
    replicas: Mapped[Json | None] = mapped_column(JSON)


class PresetRow(Base):
    """One version of a preset; the newest is in effect."""

    __tablename__ = "presets"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    model_key: Mapped[str | None] = mapped_column(String(255))
    settings: Mapped[Json] = mapped_column(JSON)
    changed_at: Mapped[float] = mapped_column(Float(53))


class DownloadRow(Base):
    """A download, finished or not. Its progress is read from its files."""

    __tablename__ = "downloads"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    reference: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(255))
    repo: Mapped[str] = mapped_column(Text)
    commit: Mapped[str] = mapped_column(String(255))
    licence: Mapped[str] = mapped_column(Text)
    files: Mapped[list[Json]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(255))
    error: Mapped[Json | None] = mapped_column(JSON)
    model_key: Mapped[str] = mapped_column(String(255))
    started_at: Mapped[float] = mapped_column(Float(53))
    finished_at: Mapped[float] = mapped_column(Float(53))


class ResponseRow(Base):
    """A response that its client may continue. The body is the last column: queries over many rows do not read it."""

    __tablename__ = "responses"
    __table_args__ = (Index("ix_responses_expires_at", "expires_at", "size"),)

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(255))
    previous_id: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(Float(53))
    written_at: Mapped[float] = mapped_column(Float(53))
    expires_at: Mapped[float] = mapped_column(Float(53))
    size: Mapped[int] = mapped_column(Integer)  # bytes of the body
    body: Mapped[bytes] = mapped_column(LargeBinary)


class InstanceRow(Base):
    """An instance that should run, and what is needed to find its worker again.

    The model's key is not a foreign key: a worker must be found and stopped even after its model was removed.
    """

    __tablename__ = "instances"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    model_key: Mapped[str] = mapped_column(String(255), index=True)
    on_demand: Mapped[bool] = mapped_column(Boolean)
    settings: Mapped[Json] = mapped_column(JSON)  # as requested
    presets: Mapped[Json | None] = mapped_column(JSON)  # that were in effect below them
    ttl: Mapped[float | None] = mapped_column(Float(53))
    placement: Mapped[Json | None] = mapped_column(JSON)
    started_at: Mapped[float] = mapped_column(Float(53))
    token: Mapped[str] = mapped_column(String(255))
    address: Mapped[str] = mapped_column(Text)
    pid: Mapped[int | None] = mapped_column(Integer)
    pid_started: Mapped[str | None] = mapped_column(String(255))
