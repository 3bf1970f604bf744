"""Presets over HTTP, and their effect on requests."""

import json
from typing import Any

import pytest

from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway, until

PRESETS = "/api/v1/presets"
PRECISE = {"inference": {"temperature": 0.25, "logit_bias": {"5": -1.0}}, "prompt": {"system_prompt": "Be brief."}}
HELLO = [{"role": "user", "content": "one two three"}]


async def send(gateway: RunningGateway, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    async with gateway.client() as http:
        reply = await http.request(method, path, json=body, headers=headers)
    return reply.status_code, reply.json()


@pytest.fixture
async def precise(gateway: RunningGateway) -> RunningGateway:
    status, _ = await send(gateway, "PUT", f"{PRESETS}/precise", PRECISE)
    assert status == 200
    return gateway


async def test_a_preset_is_created_read_changed_and_deleted(precise: RunningGateway) -> None:
    _, preset = await send(precise, "GET", f"{PRESETS}/precise")
    assert (preset["name"], preset["version"], preset["inference"]) == ("precise", 1, PRECISE["inference"])
    change = {"inference": {"temperature": None, "top_k": 3}}
    status, preset = await send(precise, "PATCH", f"{PRESETS}/precise", change)
    assert status == 200
    assert (preset["version"], preset["inference"]) == (2, {"logit_bias": {"5": -1.0}, "top_k": 3})
    assert preset["prompt"] == PRECISE["prompt"]
    _, earlier = await send(precise, "GET", f"{PRESETS}/precise?version=1")
    assert earlier["inference"] == PRECISE["inference"]
    _, listed = await send(precise, "GET", PRESETS)
    assert [each["name"] for each in listed["presets"]] == ["precise"]
    assert (await send(precise, "DELETE", f"{PRESETS}/precise"))[0] == 200
    assert (await send(precise, "GET", f"{PRESETS}/precise"))[0] == 404


async def test_a_preset_can_be_copied_and_compared(precise: RunningGateway) -> None:
    assert (await send(precise, "POST", f"{PRESETS}/precise/duplicate", {"name": "copy"}))[0] == 200
    assert (await send(precise, "POST", f"{PRESETS}/precise/duplicate", {"name": "copy"}))[0] == 409
    await send(precise, "PATCH", f"{PRESETS}/copy", {"inference": {"temperature": 0.5}})
    _, reply = await send(precise, "GET", f"{PRESETS}/copy/diff?with=precise")
    wanted = [{"group": "inference", "setting": "temperature", "before": 0.25, "after": 0.5}]
    assert reply["differences"] == wanted
    _, reply = await send(precise, "GET", f"{PRESETS}/copy/diff?version=1")
    assert reply["differences"] == wanted
    assert (await send(precise, "GET", f"{PRESETS}/copy/diff"))[0] == 400
    assert (await send(precise, "GET", f"{PRESETS}/copy/diff?version=9"))[0] == 404


async def test_an_exported_preset_can_be_imported(precise: RunningGateway) -> None:
    _, file = await send(precise, "GET", f"{PRESETS}/precise/export")
    assert (await send(precise, "POST", f"{PRESETS}/import", {"file": file}))[0] == 409
    status, preset = await send(precise, "POST", f"{PRESETS}/import", {"file": file, "name": "again"})
    assert (status, preset["inference"], preset["ignored"]) == (200, PRECISE["inference"], [])
    _, theirs = await send(precise, "GET", f"{PRESETS}/precise/export?format=lmstudio")
    theirs["operation"]["fields"].append({"key": "llm.prediction.tools", "value": None})
    _, preset = await send(precise, "POST", f"{PRESETS}/import", {"file": theirs, "replace": True})
    assert (preset["name"], preset["inference"]) == ("precise", PRECISE["inference"])
    assert preset["ignored"] == ["llm.prediction.tools"]


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("PUT", "x", {"inference": {"temperature": "hot"}}, "inference.temperature"),
        ("PUT", "x", {"inference": {"heat": 1}}, "inference.heat"),
        ("PUT", "x", {"load": []}, "load"),
        ("POST", "import", {"file": {"name": "x", "inference": 5}}, "inference"),
        ("POST", "import", {"file": {"inference": {}}}, "name"),
        ("POST", "import", {"file": {"load": 5}}, "load"),
    ],
)
async def test_errors_are_named(gateway: RunningGateway, method: str, path: str, body: Any, param: str) -> None:
    status, reply = await send(gateway, method, f"{PRESETS}/{path}", body)
    assert (status, reply["error"]["param"]) == (400, param)


async def test_a_presets_settings_apply_where_the_request_sets_nothing(precise: RunningGateway) -> None:
    async with precise.client() as http:
        body = {"model": KEY, "messages": HELLO, "preset": "precise", "top_k": 7}
        reply = await http.post("/v1/chat/completions", json=body, headers={"x-atelier-settings": "echo"})
    assert reply.status_code == 200
    settings = json.loads(reply.headers["x-atelier-settings"])
    assert settings["temperature"] == {"value": 0.25, "origin": "preset precise"}
    assert settings["top_k"] == {"value": 7, "origin": "request"}
    assert settings["min_p"]["origin"] == "built-in default"


async def test_settings_are_echoed_only_on_request(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO})
    assert "x-atelier-settings" not in reply.headers


async def test_an_unknown_preset_is_not_ignored(precise: RunningGateway) -> None:
    body = {"model": KEY, "messages": HELLO, "preset": "precice", "stream": True}
    status, reply = await send(precise, "POST", "/v1/chat/completions", body)
    assert (status, reply["error"]["code"]) == (404, "preset_not_found")
    assert "Near names: precise" in reply["error"]["message"]


async def test_settings_are_explained(precise: RunningGateway, registry: FakeRegistry) -> None:
    registry.models[KEY].sampling_defaults.top_p = 0.5
    registry.tell(pb.Change(model=registry.models[KEY]))
    assert (await send(precise, "POST", "/api/v1/models/default-preset", {"model": "tiny", "preset": "precise"}))[
        0
    ] == 200
    status, reply = await send(precise, "GET", f"/api/v1/models/{KEY}/settings")
    assert status == 200
    settings = reply["settings"]
    assert settings["temperature"] == {"value": 0.25, "origin": "default preset precise"}
    assert settings["top_p"] == {"value": 0.5, "origin": "model file"}
    assert settings["logit_bias"]["value"] == {"5": -1.0}
    assert settings["parallel"]["origin"] == "built-in default"
    assert (await send(precise, "GET", "/api/v1/models/tiny/settings?preset=nothing"))[0] == 404
    assert (await send(precise, "GET", "/api/v1/models/tiny/settings?instance=nothing"))[0] == 404
    assert (await send(precise, "GET", "/api/v1/models/nothing/settings"))[0] == 404


async def test_a_named_preset_overrides_an_instances_own_settings(
    precise: RunningGateway, registry: FakeRegistry
) -> None:
    instance = await registry.start_instance()
    instance.preset, instance.own_settings_json = (
        "own",
        json.dumps({"inference": {"temperature": 0.9, "top_k": 9}}).encode(),
    )
    registry.set_instance(instance)
    await until(lambda: [each.preset for each in precise.gateway.watcher.snapshot.instances.values()] == ["own"])
    body = {"model": KEY, "messages": HELLO, "preset": "precise"}
    async with precise.client() as http:
        reply = await http.post("/v1/chat/completions", json=body, headers={"x-atelier-settings": "echo"})
    settings = json.loads(reply.headers["x-atelier-settings"])
    assert settings["temperature"]["origin"] == "preset precise"
    assert settings["top_k"] == {"value": 9, "origin": f"instance {KEY} with preset own"}


async def test_a_load_names_its_preset(precise: RunningGateway, registry: FakeRegistry) -> None:
    await send(precise, "POST", "/api/v1/models/load", {"model": KEY, "preset": "precise"})
    assert registry.created[0].preset == "precise"
