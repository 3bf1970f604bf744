"""Disk use, over HTTP."""

from atelier.errors import Unavailable
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway


async def test_disk_use_is_shown_by_kind_of_file(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.get("/api/v1/disk")
    assert reply.status_code == 200
    assert reply.json() == {
        "file_systems": [{"path": "/home/lab/.atelier", "total_bytes": 1000, "free_bytes": 300}],
        "models": [{"key": KEY, "size_bytes": 90, "in_library": False, "names": 2}],
        "downloads": [{"job_id": "d1", "size_bytes": 40}],
        "leftovers": [{"path": "/home/lab/.atelier/models/.downloads/x", "size_bytes": 30}],
        "caches": [
            {"directory": "acme--tiny~2", "instance": f"{KEY}:2", "size_bytes": 20},
            {"directory": "gone", "instance": None, "size_bytes": 10},
        ],
        "library_bytes": 1,
        "adapters_bytes": 2,
        "logs_bytes": 3,
        "database_bytes": 4,
        "other_bytes": 5,
        "used_bytes": 6,
    }


async def test_an_error_of_the_registry_is_returned(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.fail_with = Unavailable("not now")
    async with gateway.client() as http:
        reply = await http.get("/api/v1/disk")
    assert (reply.status_code, reply.json()["error"]["message"]) == (503, "not now")
