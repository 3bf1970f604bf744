"""Searching the hub, and downloads, over HTTP."""

from typing import Any

import pytest

from atelier.errors import DiskFull, HubAccessDenied, HubUnavailable, to_message
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway, until

DOWNLOAD = "/api/v1/models/download"


async def post(gateway: RunningGateway, path: str, body: Any = None) -> tuple[int, Any]:
    async with gateway.client() as http:
        reply = await http.post(path, json=body or {})
    return reply.status_code, reply.json()


async def get(gateway: RunningGateway, path: str) -> tuple[int, Any]:
    async with gateway.client() as http:
        reply = await http.get(path)
    return reply.status_code, reply.json()


async def test_a_download_is_returned_with_lm_studios_fields_and_ours(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    status, reply = await post(gateway, DOWNLOAD, {"model": "acme/tiny-gguf", "quantization": "Q4_0", "revision": "v1"})
    assert status == 200
    assert (reply["job_id"], reply["status"], reply["state"]) == ("d1", "downloading", "queued")
    assert (reply["total_size_bytes"], reply["started_at"]) == (1000, "2023-11-14T22:13:20.000Z")
    asked = registry.wanted[0]
    assert (asked.model, asked.quantization, asked.revision) == ("acme/tiny-gguf", "Q4_0", "v1")


async def test_an_installed_model_is_not_downloaded(gateway: RunningGateway) -> None:
    assert await post(gateway, DOWNLOAD, {"model": KEY}) == (200, {"status": "already_downloaded", "model_key": KEY})


async def test_the_progress_of_a_download_is_returned(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await post(gateway, DOWNLOAD, {"model": "acme/tiny-gguf"})
    registry.set_download(state=pb.DOWNLOAD_DOWNLOADING, done_bytes=400, bytes_per_second=100.0)
    await until(lambda: gateway.gateway.watcher.snapshot.downloads["d1"].done_bytes)
    _, reply = await get(gateway, f"{DOWNLOAD}/status/d1")
    assert (reply["downloaded_bytes"], reply["bytes_per_second"], reply["seconds_left"]) == (400, 100, 6.0)
    assert reply["estimated_completion"].endswith("Z")
    assert (await get(gateway, "/api/v1/models/downloads"))[1]["downloads"][0]["job_id"] == "d1"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (pb.DOWNLOAD_VERIFYING, "downloading"),
        (pb.DOWNLOAD_COMPLETED, "completed"),
        (pb.DOWNLOAD_PAUSED, "paused"),
        (pb.DOWNLOAD_FAILED, "failed"),
    ],
)
async def test_each_state_has_its_name_in_lm_studio(
    gateway: RunningGateway, registry: FakeRegistry, state: Any, status: str
) -> None:
    registry.set_download(state=state, error=to_message(HubUnavailable("away")), finished_at=1_700_000_060)
    await until(lambda: "d1" in gateway.gateway.watcher.snapshot.downloads)
    reply = (await get(gateway, f"{DOWNLOAD}/status/d1"))[1]
    assert reply["status"] == status
    assert reply["error"]["code"] == "hub_unavailable"
    assert ("completed_at" in reply) == (status == "completed")


async def test_a_download_is_paused_resumed_and_cancelled(gateway: RunningGateway) -> None:
    await post(gateway, DOWNLOAD, {"model": "acme/tiny-gguf"})
    assert (await post(gateway, f"{DOWNLOAD}/d1/pause"))[1]["state"] == "paused"
    assert (await post(gateway, f"{DOWNLOAD}/d1/resume"))[1]["state"] == "queued"
    assert (await post(gateway, f"{DOWNLOAD}/d1/cancel"))[0] == 200
    assert (await get(gateway, f"{DOWNLOAD}/status/d1"))[0] == 404


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        (f"{DOWNLOAD}/nothing/pause", 404, None),
        (f"{DOWNLOAD}/d1/explode", 400, "action"),
        (DOWNLOAD, 400, "model"),
    ],
)
async def test_invalid_requests_are_rejected(
    gateway: RunningGateway, path: str, status: int, param: str | None
) -> None:
    answered, reply = await post(gateway, path)
    assert (answered, reply["error"].get("param")) == (status, param)


@pytest.mark.parametrize(
    ("error", "status"),
    [(HubAccessDenied("Accept their terms."), 403), (HubUnavailable("away"), 503), (DiskFull("full"), 507)],
)
async def test_the_reason_why_a_download_cannot_start_is_returned(
    gateway: RunningGateway, registry: FakeRegistry, error: Any, status: int
) -> None:
    registry.fail_with = error
    answered, reply = await post(gateway, DOWNLOAD, {"model": "acme/tiny-gguf"})
    assert (answered, reply["error"]["message"], reply["error"]["code"]) == (status, error.message, error.code)


async def test_a_search_shows_quantisations_with_their_sizes(gateway: RunningGateway, registry: FakeRegistry) -> None:
    variant = pb.Variant(quantization="Q4_0", files=["a.gguf"], size_bytes=5, fits=True)
    registry.found = [pb.Repository(id="acme/tiny-gguf", author="acme", downloads=7, likes=2, variants=[variant])]
    status, reply = await get(gateway, "/api/v1/models/search?query=tiny&limit=3")
    assert status == 200
    assert (registry.searched[0].query, registry.searched[0].limit) == ("tiny", 3)
    found = reply["models"][0]
    assert (found["id"], found["author"], found["downloads"], found["likes"]) == ("acme/tiny-gguf", "acme", 7, 2)
    assert found["variants"] == [{"quantization": "Q4_0", "files": ["a.gguf"], "size_bytes": 5, "fits": True}]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=51",
        "limit=0000000005099999",
        "limit=" + "9" * 5000,
        "limit=x",
        "limit=-1",
        "query=" + "x" * 300,
    ],
)
async def test_the_parameters_of_a_search_are_limited(gateway: RunningGateway, query: str) -> None:
    assert (await get(gateway, f"/api/v1/models/search?{query}"))[0] == 400


async def test_a_model_is_described_with_all_its_facts(gateway: RunningGateway) -> None:
    status, reply = await get(gateway, "/api/v1/models/tiny/info")
    assert status == 200
    assert (reply["key"], reply["licence"], reply["made_for_tools"], reply["source"]) == (KEY, "mit", True, None)
    assert reply["projector"] == "/models/mmproj.gguf"
    assert reply["memory"][0]["total_bytes"] == 3058
    assert (await get(gateway, "/api/v1/models/nothing/info"))[0] == 404


async def test_devices_are_listed_with_their_instances(gateway: RunningGateway) -> None:
    status, reply = await get(gateway, "/api/v1/devices")
    assert (status, reply["devices"][1]) == (
        200,
        {
            "id": "cpu",
            "description": "main memory",
            "memory_total_bytes": 8,
            "memory_free_bytes": 4,
            "instances": [KEY],
            "readings": None,
        },
    )


async def test_a_device_has_the_readings_of_its_driver_and_null_for_the_rest(gateway: RunningGateway) -> None:
    _, reply = await get(gateway, "/api/v1/devices")
    assert reply["devices"][0]["readings"] == {
        "uuid": "GPU-1",
        "pci_bus_id": None,
        "driver_version": None,
        "utilization_percent": 0,
        "memory_utilization_percent": None,
        "memory_used_bytes": None,
        "temperature_celsius": 64,
        "power_watts": None,
        "power_limit_watts": None,
    }
