"""How many instances a model has, over HTTP."""

from typing import Any

import pytest

from tests.support.gateway.gateway_registry import KEY
from tests.support.gateway.gateway_server import RunningGateway

PATH = "/api/v1/models/replicas"


async def choose(gateway: RunningGateway, **body: Any) -> tuple[int, Any]:
    async with gateway.client() as http:
        reply = await http.post(PATH, json=body)
    return reply.status_code, reply.json()


@pytest.mark.parametrize(
    ("limits", "replicas"),
    [
        ({"min": 1, "max": 3}, {"min": 1, "max": 3}),
        ({"min": 2}, {"min": 2, "max": 2}),
        ({"max": 4}, {"min": 0, "max": 4}),
        ({"min": 0}, {"min": 0, "max": 1}),
        ({}, None),
    ],
)
async def test_one_limit_may_be_omitted(
    gateway: RunningGateway, limits: dict[str, int], replicas: dict[str, int] | None
) -> None:
    assert await choose(gateway, model="tiny", **limits) == (200, {"model": KEY, "replicas": replicas})


@pytest.mark.parametrize(("field", "value"), [("min", -1), ("min", 65), ("max", 0), ("max", "many"), ("min", 1.5)])
async def test_an_invalid_limit_is_rejected_by_name(gateway: RunningGateway, field: str, value: Any) -> None:
    status, reply = await choose(gateway, **{"model": KEY, field: value})
    assert (status, reply["error"]["param"]) == (400, field)


async def test_an_unknown_model_has_no_limits(gateway: RunningGateway) -> None:
    assert (await choose(gateway, model="nothing", min=1))[0] == 404
