"""Instances with LoRA adapters: which files a load may name, and what their workers receive."""

from pathlib import Path
from typing import Any

import pytest

from atelier.errors import AtelierError, InvalidModelFile, InvalidRequest, UnsupportedField
from atelier.lora_adapters import Adapter
from protos import registry_pb2 as pb
from tests.integration.registry.conftest import KEY, Running
from tests.support.models.gguf_files import write_gguf
from tests.support.models.lora_files import write_lora_header
from tests.support.registry.registry_launcher import FakeLauncher


@pytest.fixture
def adapters(home: Path) -> Path:
    """The home's folder of adapters, with one adapter."""
    write_lora_header(home / "adapters/poet.gguf")
    return home / "adapters"


async def refusal(registry: Running, *lora: str) -> AtelierError:
    """The error with which both a load and an estimate reject these adapters."""
    refusals = []
    for ask in (registry.client.create, registry.client.estimate):
        with pytest.raises(InvalidRequest) as caught:
            await ask(KEY, lora=lora)
        refusals.append(caught.value)
    assert refusals[0].message == refusals[1].message
    assert refusals[0].param == "lora"
    return refusals[0]


async def test_a_worker_receives_its_adapters_and_watchers_their_entries(
    registry: Running, launcher: FakeLauncher, adapters: Path
) -> None:
    write_lora_header(adapters / "en/clerk.gguf")
    async with registry.client.watch() as view:
        instance = await registry.client.create(KEY, lora=["poet.gguf=0.5", "formal=en/clerk.gguf"])
        shown = await view.until_state(instance.id, pb.READY)
    assert list(shown.load.lora) == ["poet.gguf=0.5", "formal=en/clerk.gguf"]
    assert launcher.workers[0].spec.adapters == [
        Adapter("poet", str(adapters / "poet.gguf"), 0.5),
        Adapter("formal", str(adapters / "en/clerk.gguf"), 1.0),
    ]


async def test_a_restarted_instance_has_its_adapters(registry: Running, launcher: FakeLauncher, adapters: Path) -> None:
    await registry.client.create(KEY, lora=["poet.gguf"])
    first = await launcher.next_worker()
    await first.crash(1)
    assert (await launcher.next_worker()).spec.adapters == first.spec.adapters != []


async def test_adapters_count_as_weights(registry: Running, adapters: Path) -> None:
    alone, with_one = await registry.client.estimate(KEY), await registry.client.estimate(KEY, lora=["poet.gguf"])
    assert with_one.weights == alone.weights + 8 * 32 * 4
    assert with_one.kv_cache == alone.kv_cache


@pytest.mark.parametrize(
    "path", ["../models/Acme/Tiny-GGUF/Tiny.Q4_1.gguf", "/etc/poet.gguf", "en/../poet.gguf", "nul\0.gguf"]
)
async def test_a_path_outside_the_folder_is_rejected(registry: Running, adapters: Path, path: str) -> None:
    assert "nothing outside that folder is opened" in (await refusal(registry, path)).message


async def test_a_link_out_of_the_folder_is_rejected(registry: Running, adapters: Path, tmp_path: Path) -> None:
    outside = write_lora_header(tmp_path / "outside/secret.gguf")
    (adapters / "file.gguf").symlink_to(outside)
    (adapters / "folder").symlink_to(outside.parent)
    (adapters / "loop.gguf").symlink_to(adapters / "loop.gguf")
    for path in ("file.gguf", "folder/secret.gguf"):
        assert "nothing outside that folder is opened" in (await refusal(registry, path)).message
    assert "no adapter" in (await refusal(registry, "loop.gguf")).message


async def test_a_link_inside_the_folder_is_followed(registry: Running, launcher: FakeLauncher, adapters: Path) -> None:
    (adapters / "latest.gguf").symlink_to("poet.gguf")
    await registry.client.create(KEY, lora=["latest.gguf"])
    assert launcher.workers[0].spec.adapters == [Adapter("latest", str(adapters / "poet.gguf"), 1.0)]


async def test_an_unknown_adapter_is_rejected_with_suggestions(registry: Running, adapters: Path) -> None:
    assert "Near names: poet.gguf" in (await refusal(registry, "poets.gguf")).message


async def test_without_the_folder_there_is_no_adapter(registry: Running) -> None:
    assert "no adapter" in (await refusal(registry, "poet.gguf")).message


@pytest.mark.parametrize(
    ("facts", "kind", "complaint"),
    [
        ({"architecture": "qwen3"}, InvalidModelFile, "qwen3"),
        ({"adapter_type": "control"}, InvalidModelFile, "control"),
        ({"invocation_tokens": (1,)}, UnsupportedField, "aLoRA"),
    ],
)
async def test_a_file_for_another_model_is_rejected_by_name(
    registry: Running, launcher: FakeLauncher, adapters: Path, facts: dict[str, Any], kind: type, complaint: str
) -> None:
    write_lora_header(adapters / "other.gguf", **facts)
    error = await refusal(registry, "poet.gguf", "other.gguf")
    assert type(error) is kind
    assert "other.gguf" in error.message
    assert complaint in error.message
    assert launcher.workers == []


async def test_a_damaged_file_and_a_folder_are_rejected(registry: Running, adapters: Path) -> None:
    (adapters / "damaged.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    (adapters / "folder.gguf").mkdir()
    for path in ("damaged.gguf", "folder.gguf"):
        assert isinstance(await refusal(registry, path), InvalidModelFile)


async def test_an_embedding_model_accepts_no_adapters(home: Path, adapters: Path, start: Any) -> None:
    write_gguf(home / "models/Acme/Embedder.gguf", architecture="bert", name="Embedder")
    registry = await start()
    with pytest.raises(UnsupportedField) as caught:
        await registry.client.create("acme/embedder", lora=["poet.gguf"])
    assert caught.value.param == "lora"


async def test_a_models_key_selects_instances_without_adapters_if_there_are_any(
    registry: Running, adapters: Path
) -> None:
    await registry.client.create(KEY, "poet", lora=["poet.gguf"])
    assert (await registry.client.ensure(KEY)).id == "poet"
    await registry.client.create(KEY)
    assert (await registry.client.ensure(KEY)).id == KEY
    assert (await registry.client.ensure("poet")).id == "poet"
