"""Models: found, imported, rejected."""

import asyncio
import errno
import filecmp
import os
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from atelier.errors import AlreadyExists, Conflict, DiskFull, InvalidModelFile, InvalidRequest, ModelNotFound
from protos import registry_pb2 as pb
from registry.models import folder_watch
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.models.tiny_projector import write_tiny_projector

COPY, LINK, IN_PLACE = pb.ImportModelRequest.COPY, pb.ImportModelRequest.LINK, pb.ImportModelRequest.IN_PLACE


async def keys(registry: Running) -> set[str]:
    async with registry.client.watch() as view:
        return set(view.models)


def left_over(home: Path) -> list[Path]:
    return list((home / "models").rglob(".importing-*"))


def same_file(one: str | Path, other: str | Path) -> bool:
    return Path(one).samefile(other)


async def test_files_in_the_folder_are_models(registry: Running) -> None:
    async with registry.client.watch() as view:
        model = view.models[KEY]
    assert (model.publisher, model.name, model.display_name) == ("acme", "tiny", "Tiny")
    assert (model.quantization, model.parameters, model.max_context_length) == ("Q4_1", 256, 2048)
    assert (model.layers, model.embedding_length, model.bits_per_weight) == (2, 32, 5.0)


async def test_a_hostile_file_in_the_folder_hides_no_other(home: Path, start: Any) -> None:
    (home / "models/Acme/bad.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    assert await keys(await start()) == {KEY}


async def test_links_out_of_the_folder_are_not_followed(home: Path, tmp_path: Path, start: Any) -> None:
    outside = write_gguf(tmp_path / "outside/Secret.gguf")
    (home / "models/Acme/link.gguf").symlink_to(outside)
    (home / "models/Linked").symlink_to(outside.parent)
    (home / "models/Acme/loop.gguf").symlink_to(home / "models/Acme/loop.gguf")
    assert await keys(await start()) == {KEY}


async def test_an_imported_file_is_copied_into_the_folder(registry: Running, tmp_path: Path, home: Path) -> None:
    source = write_gguf(tmp_path / "Fresh-Q4_1.gguf")
    async with registry.client.watch() as view:
        model = await registry.client.import_model(source)
        assert await view.until(lambda view: view.models.get("local/fresh")) == model
    assert model.path == str(home / "models/local/fresh/Fresh-Q4_1.gguf")
    assert filecmp.cmp(model.path, source, shallow=False)
    assert not same_file(model.path, source)
    assert left_over(home) == []


async def test_a_projector_is_imported_and_removed_with_its_models(
    registry: Running, tmp_path: Path, home: Path
) -> None:
    for name in ("Fresh-Q4_1.gguf", "Fresh-Q8_0.gguf"):
        write_gguf(tmp_path / name, name=name)
    projector = write_tiny_projector(tmp_path / "mmproj-Fresh-F16.gguf", 32)
    write_tiny_projector(tmp_path / "mmproj-Other-F16.gguf", 48)
    first = await registry.client.import_model(tmp_path / "Fresh-Q4_1.gguf", key="acme/fresh@q4_1")
    second = await registry.client.import_model(tmp_path / "Fresh-Q8_0.gguf", key="acme/fresh@q8_0")
    folder = home / "models/acme/fresh"
    assert {path.name for path in folder.iterdir()} == {projector.name, "Fresh-Q4_1.gguf", "Fresh-Q8_0.gguf"}
    assert filecmp.cmp(folder / projector.name, projector, shallow=False)
    assert first.made_for_vision
    assert second.made_for_vision
    assert await registry.client.remove(first.key) == [str(folder / "Fresh-Q4_1.gguf")]
    deleted = await registry.client.remove(second.key)
    assert set(deleted) == {str(folder / projector.name), str(folder / "Fresh-Q8_0.gguf")}
    assert not folder.exists()


async def test_each_import_keeps_the_projector_found_beside_it(registry: Running, tmp_path: Path) -> None:
    contents = {}
    for seed, name in enumerate(("one", "two")):
        source = write_gguf(tmp_path / name / "Fresh.gguf", name=name)
        projector = write_tiny_projector(source.with_name("mmproj-F16.gguf"), 32, seed=seed)
        model = await registry.client.import_model(source, key=f"acme/fresh@{name}")
        contents[model.key] = projector.read_bytes()
    for model in registry.server.catalogue.all():
        if model.key in contents:
            assert model.projector
            assert model.projector.path.read_bytes() == contents[model.key]
    assert len(contents) == 2


async def test_a_link_takes_no_space(registry: Running, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf")
    model = await registry.client.import_model(source, mode=LINK)
    assert same_file(model.path, source)
    assert model.path != str(source)


async def test_a_file_can_stay_where_it_is(registry: Running, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf")
    assert (await registry.client.import_model(source, mode=IN_PLACE)).path == str(source)


async def test_the_same_file_twice_is_the_same_model(registry: Running, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf")
    first, second = await asyncio.gather(*(registry.client.import_model(source) for _ in range(2)))
    assert first == second
    assert await registry.client.import_model(first.path) == first
    with pytest.raises(AlreadyExists, match="local/fresh"):
        await registry.client.import_model(source, key="me/other")


@pytest.mark.parametrize("tokens", [16, 99])
async def test_a_replaced_file_in_place_is_the_same_model_with_new_facts(
    registry: Running, tmp_path: Path, tokens: int
) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf", context_length=1111)
    first = await registry.client.import_model(source, mode=IN_PLACE)
    write_gguf(source, context_length=4444, tokens=tokens)
    async with registry.client.watch() as view:
        second = await registry.client.import_model(source, mode=IN_PLACE)
        assert (second.key, second.path, second.max_context_length) == (first.key, first.path, 4444)
        assert await view.until(lambda view: view.models[first.key]) == second
        assert set(view.models) == {KEY, first.key}


async def test_long_templates_and_titles_are_not_sent_to_watchers(home: Path, start: Any) -> None:
    long = "x" * 4_000_000
    write_gguf(home / "models/model.gguf", name=long, chat_template=long)
    async with (await start()).client.watch() as view:
        assert max(model.ByteSize() for model in view.models.values()) < 2000


async def test_a_second_quantisation_becomes_a_variant(registry: Running, tmp_path: Path) -> None:
    first = await registry.client.import_model(write_gguf(tmp_path / "a/Fresh-Q4_1.gguf"))
    second = await registry.client.import_model(write_gguf(tmp_path / "b/Fresh-Q8_0.gguf", file_type=7))
    assert (first.key, second.key) == ("local/fresh", "local/fresh@q8_0")


async def test_files_of_one_name_do_not_overwrite_each_other(registry: Running, tmp_path: Path) -> None:
    first = await registry.client.import_model(write_gguf(tmp_path / "a/Fresh.gguf", name="one"))
    second = await registry.client.import_model(write_gguf(tmp_path / "b/Fresh.gguf", name="another"))
    assert (first.key, second.key) == ("local/fresh", "local/fresh@q4_1")
    assert first.path != second.path
    assert not filecmp.cmp(first.path, second.path, shallow=False)


async def test_a_requested_key_is_used_or_rejected(registry: Running, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "a/Fresh.gguf")
    assert (await registry.client.import_model(source, key="Me/Mine")).key == "me/mine"
    with pytest.raises(AlreadyExists) as refusal:
        await registry.client.import_model(write_gguf(tmp_path / "b/Fresh.gguf"), key="me/mine")
    assert refusal.value.param == "key"


@pytest.mark.parametrize("key", ["mine", "../../etc/x", "a/b/c", "a/..", "/a", "a/b c"])
async def test_an_invalid_key_is_rejected(registry: Running, tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await registry.client.import_model(write_gguf(tmp_path / "Fresh.gguf"), key=key)
    assert refusal.value.param == "key"


@pytest.mark.parametrize("path", ["", "relative.gguf", "/nowhere/at/all.gguf", "/tmp", "/dev/zero", "~/x.gguf"])
async def test_a_path_other_than_a_file_is_rejected(registry: Running, path: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await registry.client.import_model(path)
    assert refusal.value.param == "path"


async def test_a_file_that_is_not_a_model_is_rejected_and_not_kept(
    registry: Running, tmp_path: Path, home: Path
) -> None:
    source = tmp_path / "Notes.gguf"
    source.write_text("not a model")
    with pytest.raises(InvalidModelFile, match="does not start with GGUF"):
        await registry.client.import_model(source)
    assert not (home / "models/local").exists()


async def test_split_files_are_imported_together(registry: Running, tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "Big-00001-of-00002.gguf")
    with pytest.raises(InvalidModelFile, match="missing"):
        await registry.client.import_model(first)
    write_gguf(tmp_path / "Big-00002-of-00002.gguf")
    model = await registry.client.import_model(first)
    assert (model.key, model.parameters) == ("local/big", 512)
    assert Path(model.path).with_name("Big-00002-of-00002.gguf").exists()


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_folder_that_cannot_be_created_is_reported(
    registry: Running, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf")
    with monkeypatch.context() as disk:
        disk.setattr("registry.models.library_files.Path.mkdir", full)
        with pytest.raises(DiskFull):
            await registry.client.import_model(source)
    (home / "models/local").write_text("in the way")
    with pytest.raises(InvalidRequest, match="could not be imported"):
        await registry.client.import_model(source)


async def test_a_full_disk_is_reported_and_leaves_no_files(
    registry: Running, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf")
    monkeypatch.setattr("registry.models.library_files.os.fsync", full)
    with pytest.raises(DiskFull):
        await registry.client.import_model(source)
    monkeypatch.undo()
    assert list((home / "models/local/fresh").iterdir()) == []
    assert await keys(registry) == {KEY}


async def test_memory_is_estimated_from_the_file_and_the_settings(registry: Running) -> None:
    small, large = [await registry.client.estimate(KEY, context_length=length) for length in (512, 1024)]
    assert small.weights == large.weights > 0
    assert small.compute > 0
    guessing = await registry.client.estimate(KEY, context_length=512, draft_model=KEY)
    assert (guessing.weights, guessing.kv_cache) == (2 * small.weights, 2 * small.kv_cache)
    with pytest.raises(InvalidRequest):
        await registry.client.estimate(KEY, context_length=2**20)
    with pytest.raises(ModelNotFound):
        await registry.client.estimate("no/such")


async def test_removing_a_model_deletes_its_files_and_empty_folders(registry: Running, home: Path) -> None:
    async with registry.client.watch() as view:
        deleted = await registry.client.remove(KEY)
        await view.until(lambda view: KEY not in view.models)
    assert deleted == [str(home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf")]
    assert list((home / "models").iterdir()) == []
    with pytest.raises(ModelNotFound):
        await registry.client.remove(KEY)


async def test_a_removed_model_of_another_program_keeps_its_file(registry: Running, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "Fresh.gguf")
    model = await registry.client.import_model(source, mode=IN_PLACE)
    assert await registry.client.remove(model.key) == []
    assert source.exists()


async def test_a_loaded_model_is_not_removed(registry: Running) -> None:
    await registry.client.create(KEY)
    with pytest.raises(Conflict, match="unload"):
        await registry.client.remove(KEY)


async def test_a_file_that_is_no_longer_a_model_is_reported(registry: Running, home: Path) -> None:
    file = home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf"
    assert [(each.name, each.expected, each.fault) for each in await registry.client.verify(KEY)] == [
        (file.name, "", "")
    ]
    file.write_bytes(file.read_bytes()[:100])
    assert "truncated" in (await registry.client.verify(KEY))[0].fault
    file.unlink()
    assert "cannot be read" in (await registry.client.verify(KEY))[0].fault


@pytest.fixture
async def looking(start: Any, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A registry that scans its folder continuously."""
    monkeypatch.setattr(folder_watch, "POLL_SECONDS", 0.01)
    started: Running = await start()
    return started


async def test_a_file_added_to_the_folder_appears(looking: Running, home: Path) -> None:
    async with looking.client.watch() as view:
        write_gguf(home / "models/Acme/New-GGUF/New-Q4_1.gguf")
        await view.until(lambda view: "acme/new" in view.models)


async def test_a_deleted_file_disappears_and_may_come_back(looking: Running, home: Path) -> None:
    file = home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf"
    content = file.read_bytes()
    async with looking.client.watch() as view:
        file.unlink()
        await view.until(lambda view: KEY not in view.models)
        file.write_bytes(content)
        await view.until(lambda view: KEY in view.models)


async def test_a_file_being_copied_appears_once_it_is_complete(looking: Running, home: Path) -> None:
    whole = write_gguf(home.parent / "whole.gguf", tensor_count=50).read_bytes()
    file = home / "models/Acme/Slow-GGUF/Slow.gguf"
    file.parent.mkdir()
    async with looking.client.watch() as view:
        file.write_bytes(whole[: len(whole) // 2])
        (home / "models/Acme/Other-GGUF").mkdir()
        write_gguf(home / "models/Acme/Other-GGUF/Other.gguf")
        await view.until(lambda view: "acme/other" in view.models)
        assert "acme/slow" not in view.models
        file.write_bytes(whole)
        await view.until(lambda view: "acme/slow" in view.models)


async def test_a_replaced_file_is_read_again(looking: Running, home: Path) -> None:
    async with looking.client.watch() as view:
        write_gguf(home / "models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf", context_length=512)
        await view.until(lambda view: view.models[KEY].max_context_length == 512)


async def test_a_model_is_described_with_all_its_facts(registry: Running, home: Path) -> None:
    template = "{% if tools %}{{ tools }}{% endif %}<think>{{ messages }}"
    file = write_gguf(
        home.parent / "Wise.gguf", chat_template=template, context_length=8192, extra={"general.license": "mit"}
    )
    key = (await registry.client.import_model(file)).key
    described = await registry.client.describe(key)
    assert (described.chat_template, described.licence) == (template, "mit")
    for facts in (described, described.model):
        assert (facts.made_for_tools, facts.made_for_reasoning) == (True, True)
    assert [each.context_length for each in described.memory] == [2048, 4096, 8192]
    caches = [each.estimate.kv_cache for each in described.memory]
    assert caches == sorted(caches)
    plain = await registry.client.describe(KEY)
    assert (plain.chat_template, plain.made_for_tools, plain.model.made_for_tools) == ("", False, False)


async def test_a_projector_beside_a_model_is_reported_and_counted(looking: Running, home: Path) -> None:
    projector = home / "models/Acme/Tiny-GGUF/mmproj-Tiny-F16.gguf"
    async with looking.client.watch() as view:
        await view.until(lambda view: KEY in view.models and not view.models[KEY].made_for_vision)
        alone = (await looking.client.describe(KEY)).memory[0].estimate.weights
        write_tiny_projector(projector, 32)
        await view.until(lambda view: view.models[KEY].made_for_vision)
        seeing = await looking.client.describe(KEY)
        assert seeing.memory[0].estimate.weights == alone + projector.stat().st_size
        assert seeing.projector == str(projector)
        projector.unlink()
        await view.until(lambda view: not view.models[KEY].made_for_vision)
        assert not (await looking.client.describe(KEY)).HasField("projector")


async def test_a_projector_of_another_model_is_not_used(looking: Running, home: Path) -> None:
    write_tiny_projector(home / "models/Acme/Tiny-GGUF/mmproj-Other-F16.gguf", 48)
    write_gguf(home / "models/Acme/Tiny-GGUF/Seen.gguf")  # shows that the folder was scanned since
    async with looking.client.watch() as view:
        await view.until(lambda view: len(view.models) == 2)
        assert [model.made_for_vision for model in view.models.values()] == [False, False]


async def test_a_projector_that_fits_no_model_is_logged_once(registry: Running, home: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        misfit = write_tiny_projector(home / "models/Acme/Tiny-GGUF/mmproj-Other-F16.gguf", 48)
        for _ in range(2):
            await registry.server.folder_watch.refresh()
    (logged,) = [logged for logged in logs if logged["event"] == "projector_fits_no_model"]
    assert (logged["path"], logged["widths"], logged["models"]) == (str(misfit), [48], {KEY: 32})


async def test_an_unmounted_disk_loses_no_models(start: Any, home: Path) -> None:
    first: Running = await start()
    away = home / "away"
    (home / "models/Acme").rename(away)
    for _ in range(2):
        await first.server.folder_watch.refresh()
    assert KEY in {model.key for model in first.server.catalogue.all()}
    await first.server.drain()
    second: Running = await start()  # with an empty folder in its place
    assert await keys(second) == set()
    away.rename(home / "models/Acme")
    for _ in range(2):
        await second.server.folder_watch.refresh()
    assert await keys(second) == {KEY}


async def test_an_undecodable_file_name_does_not_stop_the_scan(registry: Running, home: Path) -> None:
    source = write_gguf(home.parent / "x.gguf")
    os.link(source, os.fsencode(home / "models/Acme") + b"/caf\xe9.gguf")
    for _ in range(2):
        await registry.server.folder_watch.refresh()
    assert await keys(registry) == {KEY}
