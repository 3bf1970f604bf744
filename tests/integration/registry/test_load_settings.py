"""The registry loads a model with the load settings that a gateway shows for it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atelier.settings import TABLE
from tests.integration.registry.conftest import KEY, Running
from tests.support.gateway.gateway_server import RunningGateway, running_gateway, until
from tests.support.models.gguf_files import write_gguf

SETTINGS = f"/api/v1/models/{KEY}/settings"
PRESETS = [
    {},
    {"draft_model": "small"},
    {"draft_model": "acme/small", "speculation": "draft_model", "draft_tokens": 2},
    {"context_length": 100_000, "parallel": 3},
    {"context_length": 100_000, "parallel": 2, "rope_scaling": "yarn"},
    {"context_length": 512, "k_type": "q8_0", "flash_attention": False, "tensor_split": [0.7, 0.3]},
]


@pytest.fixture
def home(home: Path) -> Path:
    """The usual home, with a second model that can serve as a draft model."""
    write_gguf(home / "models/Acme/Small-GGUF/Small.gguf")
    return home


@pytest.fixture
async def gateway(registry: Running) -> AsyncIterator[RunningGateway]:
    async with running_gateway(registry) as running:
        yield running


async def shown(gateway: RunningGateway, preset: str = "") -> dict[str, Any]:
    """The load settings that the gateway shows, with their origins; but for the one that is sized by free memory."""
    async with gateway.client() as http:
        reply = (await http.get(SETTINGS, params={"preset": preset} if preset else {})).json()
    return {name: reply["settings"][name] for name in TABLE["load"] if name != "cache_ram"}


async def load(gateway: RunningGateway, **body: Any) -> None:
    async with gateway.client() as http:
        reply = await http.post("/api/v1/models/load", json={"model": KEY, **body})
    assert reply.status_code == 200, reply.text


async def add_preset(registry: Running, gateway: RunningGateway, values: dict[str, Any]) -> None:
    await registry.client.put_preset("mine", load=values)
    await until(lambda: "mine" in gateway.gateway.watcher.snapshot.presets)


@pytest.mark.parametrize("values", PRESETS)
async def test_an_instance_is_loaded_with_the_settings_shown_for_its_preset(
    registry: Running, gateway: RunningGateway, values: dict[str, Any]
) -> None:
    await add_preset(registry, gateway, values)
    before = await shown(gateway, "mine")
    await load(gateway, preset="mine")
    assert await shown(gateway) == before


@pytest.mark.parametrize("values", PRESETS)
async def test_an_instance_is_loaded_with_the_settings_shown_for_the_default_preset(
    registry: Running, gateway: RunningGateway, values: dict[str, Any]
) -> None:
    await add_preset(registry, gateway, values)
    await registry.client.set_default_preset(KEY, "mine")
    await until(lambda: gateway.gateway.watcher.snapshot.models[KEY].default_preset)
    before = await shown(gateway)
    await load(gateway)
    assert await shown(gateway) == before


async def test_naming_only_a_draft_model_is_shown_as_draft_speculation(
    registry: Running, gateway: RunningGateway
) -> None:
    await add_preset(registry, gateway, {"draft_model": "small"})
    settings = await shown(gateway, "mine")
    assert settings["speculation"] == {"value": "draft_model", "origin": "preset mine"}
    assert settings["draft_model"] == {"value": "acme/small", "origin": "preset mine"}
    assert settings["context_length"] == {"value": 2048, "origin": "model file"}
