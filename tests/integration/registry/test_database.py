"""The database: persistence, locks, migrations."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

from atelier.config import Config
from atelier.errors import Unavailable
from protos import registry_pb2 as pb
from registry.database import open_database
from registry.database_tables import Base, ModelRow
from registry.hub.hub_client import Hub
from registry.server import RegistryServer
from tests.integration.registry.conftest import KEY, Running, running
from tests.support.models.gguf_files import write_gguf
from tests.support.registry.registry_client import SECONDS, connect
from tests.support.registry.registry_launcher import FakeLauncher


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Another process's lock on the database."""
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture
async def impatient(home: Path, launcher: FakeLauncher) -> Any:
    """A registry that waits a tenth of a second for locks."""

    @asynccontextmanager
    async def start() -> Any:
        config = Config(home=home, engine="scripted", shutdown_grace=1)
        server = RegistryServer(config, await open_database(config.database_path, busy_seconds=0.1), launcher, Hub())
        await server.start()
        async with connect(config.registry_target) as client:
            yield Running(config, server, client)
        await server.drain()

    async with start() as started:
        yield started


async def test_models_keep_their_keys_over_a_restart(home: Path, launcher: FakeLauncher, tmp_path: Path) -> None:
    async with running(home, launcher) as first:
        model = await first.client.import_model(write_gguf(tmp_path / "Fresh.gguf"), key="me/mine")
    async with running(home, launcher) as second, second.client.watch() as view:
        assert view.models["me/mine"] == model
        assert set(view.models) == {KEY, "me/mine"}


async def test_facts_of_an_earlier_version_are_ignored(home: Path, launcher: FakeLauncher) -> None:
    async with running(home, launcher):
        pass
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.execute("UPDATE models SET facts = json_set(facts, '$.plane_positions', json('true'))")
        connection.commit()
    async with running(home, launcher) as second, second.client.watch() as view:
        assert set(view.models) == {KEY}


async def test_a_deleted_file_disappears_and_a_file_left_in_place_may_come_back(
    home: Path, launcher: FakeLauncher, tmp_path: Path
) -> None:
    elsewhere = write_gguf(tmp_path / "Fresh.gguf")
    async with running(home, launcher) as first:
        await first.client.import_model(elsewhere, key="me/mine", mode=pb.ImportModelRequest.IN_PLACE)
    elsewhere.rename(tmp_path / "away.gguf")
    (home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf").unlink()
    async with running(home, launcher) as second, second.client.watch() as view:
        assert not view.models
        (tmp_path / "away.gguf").rename(elsewhere)
        model = await second.client.import_model(elsewhere, mode=pb.ImportModelRequest.IN_PLACE)
        assert model.key == "me/mine"


async def test_a_replaced_file_is_read_again(home: Path, launcher: FakeLauncher) -> None:
    async with running(home, launcher):
        pass
    write_gguf(home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf", context_length=4444, tokens=99)
    async with running(home, launcher) as second, second.client.watch() as view:
        assert view.models[KEY].max_context_length == 4444


async def test_a_locked_database_rejects_writes_and_serves_everything_else(
    impatient: Running, launcher: FakeLauncher, home: Path, tmp_path: Path
) -> None:
    client = impatient.client
    ready = await client.ensure(KEY)
    with locked(home):
        assert await client.ensure(KEY) == ready
        async with client.watch() as view:
            assert set(view.models) == {KEY}
        for change in (
            client.create(KEY),
            client.unload(KEY),
            client.import_model(write_gguf(tmp_path / "Fresh.gguf")),
        ):
            with pytest.raises(Unavailable, match="database"):
                await change
        assert len(launcher.workers) == 1
        assert (await client.ensure(KEY)).state == pb.READY
    assert (await client.create(KEY)).id == f"{KEY}:2"
    assert (await client.import_model(tmp_path / "Fresh.gguf")).key == "local/fresh"
    await client.unload(KEY)


async def test_a_worker_is_restarted_while_the_database_is_locked(
    impatient: Running, launcher: FakeLauncher, home: Path
) -> None:
    await impatient.client.ensure(KEY)
    with locked(home):
        async with impatient.client.watch() as view:
            await launcher.workers[0].crash(-9)
            await view.until(lambda view: view.instances[KEY].restarts == 1)
            pid = (await view.until_state(KEY, pb.READY)).pid
    async with asyncio.timeout(SECONDS):  # the row is written once the lock is released
        while (await impatient.server._instance_store.all())[0].pid != pid:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def test_a_write_that_violates_a_constraint_is_not_an_outage(home: Path) -> None:
    database = await open_database(home / "registry.db")
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            session.add(ModelRow(key="a/b"))
    await database.close()


async def test_a_damaged_database_is_reported(home: Path) -> None:
    (home / "registry.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match=r"registry\.db"):
        await open_database(home / "registry.db")


async def test_a_database_of_a_newer_version_is_reported(home: Path) -> None:
    await (await open_database(home / "registry.db")).close()
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(Unavailable, match="9999"):
        await open_database(home / "registry.db")


async def test_the_migrations_make_the_tables_that_the_code_uses(home: Path) -> None:
    database = await open_database(home / "registry.db")
    await database.close()

    def differences() -> list[Any]:
        engine = create_engine(f"sqlite:///{home / 'registry.db'}")
        with engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        engine.dispose()
        return list(found)

    assert await asyncio.to_thread(differences) == []


async def test_the_database_of_the_first_version_opens(home: Path, launcher: FakeLauncher) -> None:
    script = Path(__file__).with_name("database_0.1.0.sql").read_text().replace("{models}", str(home / "models"))
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        connection.executescript(script)
    async with running(home, launcher) as registry, registry.client.watch() as view:
        model = view.models[KEY]
        assert (model.default_preset, model.replicas.least, model.replicas.most) == ("precise", 1, 2)
        assert set(view.models) == {KEY}
        assert "temperature" in view.presets["precise"].settings_json.decode()
        assert (await registry.client.get_response("resp_1", owner="")).body == b"{}"
