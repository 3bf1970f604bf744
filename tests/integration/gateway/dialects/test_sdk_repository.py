"""The hub through LM Studio's SDK: searches and downloads."""

import asyncio
from typing import Any

import lmstudio
import pytest

from atelier.errors import DiskFull, HubUnavailable, to_message
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, until
from tests.support.gateway.sdk_client import Frames, async_client, open_socket, with_client

REPO = "acme/tiny-gguf"
NEW = "acme/new"
SMALL = pb.Variant(quantization="Q4_K_M", files=["tiny-Q4_K_M.gguf"], size_bytes=5, fits=True, usual=True)
SPLIT = pb.Variant(files=["big/tiny-00001-of-00002.gguf", "big/tiny-00002-of-00002.gguf"], size_bytes=90)
DOWNLOAD = {"downloadIdentifier": f"{REPO}:a.gguf"}


@pytest.fixture
def found(registry: FakeRegistry) -> None:
    registry.found = [pb.Repository(id="Acme/Tiny-GGUF", variants=[SMALL, SPLIT]), pb.Repository(id="other/tiny")]


def come(registry: FakeRegistry) -> None:
    """The download is complete, and its model known."""
    registry.tell(pb.Change(model=model_message(NEW)))
    registry.set_download(state=pb.DOWNLOAD_COMPLETED, done_bytes=1000, model_key=NEW)


@pytest.mark.usefixtures("found")
async def test_repositories_are_found_with_their_files(gateway: RunningGateway, registry: FakeRegistry) -> None:
    def look(client: lmstudio.Client) -> Any:
        models = client.repository.search_models(REPO, limit=3)
        return models, models[0].get_download_options()

    models, options = await with_client(gateway, look)
    assert [(each.search_result.name, each.search_result.exact) for each in models] == [
        ("Acme/Tiny-GGUF", True),
        ("other/tiny", False),
    ]
    assert [(each.query, each.limit) for each in registry.searched] == [(REPO, 3), ("Acme/Tiny-GGUF", 1)]
    small, split = (each.info for each in options)
    assert (small.name, small.quantization, small.size_bytes) == ("tiny-Q4_K_M.gguf", "Q4_K_M", 5)
    assert (small.fit_estimation, small.recommended) == ("fitWithoutGPU", True)
    assert (split.quantization, split.fit_estimation, split.recommended) == (None, "willNotFit", False)
    assert split.download_identifier == "Acme/Tiny-GGUF:big/tiny-00001-of-00002.gguf"
    assert split.indexed_model_identifier == "Acme/Tiny-GGUF/big/tiny-00001-of-00002.gguf"


@pytest.mark.usefixtures("found")
async def test_a_search_without_words_is_limited_to_gguf(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with async_client(gateway) as client:
        assert await client.repository.search_models(compatibility_types=["safetensors"]) == []
        assert registry.searched == []
        assert len(await client.repository.search_models(compatibility_types=["safetensors", "gguf"])) == 2
    assert [(each.query, each.limit) for each in registry.searched] == [("", 10)]


@pytest.mark.parametrize(
    ("endpoint", "parameter", "status"),
    [
        ("searchModels", {}, 400),
        ("searchModels", {"opts": {"limit": 0}}, 400),
        ("searchModels", {"opts": {"limit": 26}}, 400),
        ("searchModels", {"opts": {"searchTerm": "x" * 201}}, 400),
        ("searchModels", {"opts": {"compatibilityTypes": "gguf"}}, 400),
        ("getModelDownloadOptions", {"modelSearchResultIdentifier": REPO}, 400),
        ("getModelDownloadOptions", {"modelSearchResultIdentifier": {"type": "hf", "identifier": ""}}, 400),
        ("getModelDownloadOptions", {"modelSearchResultIdentifier": {"type": "hf", "identifier": "tiny"}}, 404),
        ("getModelDownloadOptions", {"modelSearchResultIdentifier": {"type": "catalog", "identifier": REPO}}, 400),
    ],
)
@pytest.mark.usefixtures("found")
async def test_an_invalid_hub_request_is_rejected(
    gateway: RunningGateway, endpoint: str, parameter: Any, status: int
) -> None:
    async with open_socket(gateway, "repository") as frames:
        reply = await frames.call(endpoint, parameter)
        assert (reply["type"], reply["error"]["errorData"]["status"]) == ("rpcError", status)


@pytest.mark.usefixtures("found")
async def test_a_download_reports_its_progress_until_its_model_can_be_loaded(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    seen: list[Any] = []

    def note(update: lmstudio.DownloadProgressUpdate) -> None:
        seen.append((update.downloaded_bytes, update.total_bytes, update.speed_bytes_per_second))

    async def download() -> str:
        async with async_client(gateway) as client:
            model, _ = await client.repository.search_models("tiny")
            option, _ = await model.get_download_options()
            return await option.download(note, lambda: seen.append("finalizing"))

    downloading = asyncio.create_task(download())
    await until(lambda: (0, 1000, 0) in seen)
    assert registry.wanted[0].model == "Acme/Tiny-GGUF:tiny-Q4_K_M.gguf"
    registry.set_download(state=pb.DOWNLOAD_DOWNLOADING, done_bytes=400, bytes_per_second=50.5)
    await until(lambda: (400, 1000, 50.5) in seen)
    registry.set_download(state=pb.DOWNLOAD_VERIFYING, done_bytes=1000)
    await until(lambda: "finalizing" in seen)
    come(registry)
    assert await asyncio.wait_for(downloading, PATIENCE) == NEW
    assert seen.count("finalizing") == 1


async def test_an_installed_model_is_not_downloaded_again(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with open_socket(gateway, "repository") as frames:
        await frames.open("downloadModel", {"downloadIdentifier": KEY})
        message, _ = await frames.receive_until("channelClose")
    assert message["message"] == {"type": "success", "defaultIdentifier": KEY}
    assert registry.downloads == {}


async def begun(frames: Frames, registry: FakeRegistry) -> None:
    await frames.open("downloadModel", DOWNLOAD)
    assert (await frames.receive())["message"]["type"] == "downloadProgress"
    assert registry.downloads


async def test_a_client_that_cancels_ends_its_download(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with open_socket(gateway, "repository") as frames:
        await begun(frames, registry)
        await frames.cancel()
        assert (await frames.receive_until("channelClose"))[-1]["channelId"] == 1
    assert registry.downloads == {}


async def test_a_client_that_cancels_does_not_end_a_download_that_it_joined(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.set_download(state=pb.DOWNLOAD_DOWNLOADING, done_bytes=10)
    await until(lambda: gateway.gateway.watcher.snapshot.downloads)
    async with open_socket(gateway, "repository") as frames:
        await begun(frames, registry)
        await frames.cancel()
        await frames.receive_until("channelClose")
    assert registry.downloads


async def test_a_download_continues_after_its_client_disconnects(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    async with open_socket(gateway, "repository") as frames:
        await begun(frames, registry)
    async with open_socket(gateway, "repository") as frames:
        await begun(frames, registry)
        come(registry)
        message = (await frames.receive_until("channelClose"))[-2]["message"]
    assert message == {"type": "success", "defaultIdentifier": NEW}


async def test_the_reason_of_a_failed_download_is_reported(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with open_socket(gateway, "repository") as frames:
        await begun(frames, registry)
        registry.set_download(state=pb.DOWNLOAD_FAILED, error=to_message(DiskFull("full")))
        error = (await frames.receive_until("channelError"))[-1]["error"]
        assert (error["title"], error["errorData"]["status"]) == ("full", 507)
    registry.fail_with = HubUnavailable("away")
    async with async_client(gateway) as client:
        with pytest.raises(lmstudio.LMStudioServerError, match="away"):
            await client.repository.search_models("tiny")
