"""Presets in the registry: versioned, validated, and used when an instance is loaded."""

import asyncio
import json
from typing import Any

import pytest

from atelier.errors import AlreadyExists, Conflict, InvalidRequest, InvalidTemplate, ModelNotFound, PresetNotFound
from tests.integration.registry.conftest import KEY, Running

DEEP = "{{ " + "(" * 400 + "1" + ")" * 400 + " }}"
PRECISE = {"inference": {"temperature": 0.1}, "prompt": {"system_prompt": "Be brief."}, "load": {"parallel": 3}}


async def test_a_preset_has_versions(registry: Running) -> None:
    first = await registry.client.put_preset("precise", 0, **PRECISE)
    second = await registry.client.put_preset("precise", first.version, inference={"temperature": 0.2})
    assert (first.version, second.version) == (1, 2)
    versions = await registry.client.preset_versions("precise")
    assert [(each.version, each.group("inference")) for each in versions] == [
        (2, {"temperature": 0.2}),
        (1, {"temperature": 0.1}),
    ]


async def test_a_write_without_changes_makes_no_new_version(registry: Running) -> None:
    first = await registry.client.put_preset("precise", **PRECISE)
    assert await registry.client.put_preset("precise", **PRECISE) == first


async def test_every_watcher_receives_the_preset(registry: Running) -> None:
    async with registry.client.watch() as view:
        await registry.client.put_preset("precise", **PRECISE)
        await view.until(lambda view: "precise" in view.presets)
        await registry.client.delete_preset("precise")
        await view.until(lambda view: "precise" not in view.presets)


async def test_a_write_based_on_an_older_version_is_rejected(registry: Running) -> None:
    await registry.client.put_preset("precise", **PRECISE)
    with pytest.raises(AlreadyExists):
        await registry.client.put_preset("precise", 0, inference={})
    results = await asyncio.gather(
        *(registry.client.put_preset("precise", 1, inference={"top_k": k}) for k in (1, 2)), return_exceptions=True
    )
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
    with pytest.raises(Conflict):
        await registry.client.put_preset("new", 3, inference={})


@pytest.mark.parametrize(
    ("name", "groups", "error", "param"),
    [
        ("", {}, InvalidRequest, "name"),
        ("a/b", {}, InvalidRequest, "name"),
        ("x" * 65, {}, InvalidRequest, "name"),
        ("ok", {"inference": {"temperature": 9}}, InvalidRequest, "inference.temperature"),
        ("ok", {"inference": {"heat": 1}}, InvalidRequest, "inference.heat"),
        ("ok", {"prompt": {"chat_template": "{% for %}"}}, InvalidTemplate, "prompt.chat_template"),
        ("ok", {"prompt": {"chat_template": "{{ raise_exception('no') }}"}}, InvalidTemplate, "prompt.chat_template"),
        (
            "ok",
            {
                "prompt": {
                    "chat_template": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
                }
            },
            InvalidTemplate,
            "prompt.chat_template",
        ),
        (
            "ok",
            {"prompt": {"chat_template": "{% set x = 'a' * 9999999999 %}"}},
            InvalidTemplate,
            "prompt.chat_template",
        ),
        ("ok", {"prompt": {"chat_template": "{{ 10**5000 }}"}}, InvalidTemplate, "prompt.chat_template"),
        ("ok", {"prompt": {"chat_template": DEEP}}, InvalidTemplate, "prompt.chat_template"),
        ("ok", {"prompt": {"stop": ["x" * 1025]}}, InvalidRequest, "prompt.stop.0"),
        ("ok", {"prompt": {"system_prompt": "\u20ac" * 90_000}}, InvalidRequest, "settings"),
    ],
)
async def test_an_invalid_preset_is_not_stored(
    registry: Running, name: str, groups: dict[str, Any], error: type[Exception], param: str
) -> None:
    with pytest.raises(error) as caught:
        await registry.client.put_preset(name, **groups)
    assert caught.value.param == param  # type: ignore[attr-defined]
    async with registry.client.watch() as view:
        assert view.presets == {}


async def test_a_preset_for_a_model_names_an_existing_one(registry: Running) -> None:
    assert (await registry.client.put_preset("mine", model="tiny")).model == KEY
    with pytest.raises(ModelNotFound):
        await registry.client.put_preset("other", model="nothing")


async def test_an_instance_is_loaded_with_a_preset(registry: Running) -> None:
    await registry.client.put_preset("precise", **PRECISE)
    instance = await registry.client.create(KEY, preset="precise", context_length=512)
    assert (instance.load.parallel, instance.load.context_length, instance.preset) == (3, 512, "precise")
    assert dict(instance.load_origins)["parallel"] == "preset precise"
    assert dict(instance.load_origins)["context_length"] == "request"
    assert json.loads(instance.own_settings_json) == {
        "inference": {"temperature": 0.1},
        "prompt": {"system_prompt": "Be brief."},
    }
    with pytest.raises(PresetNotFound):
        await registry.client.create(KEY, preset="none")


async def test_a_default_preset_applies_without_a_request(registry: Running) -> None:
    await registry.client.put_preset("small", load={"parallel": 2, "context_length": 100_000})
    model = await registry.client.set_default_preset(KEY, "small")
    assert model.default_preset == "small"
    instance = await registry.client.ensure(KEY)
    assert (instance.load.parallel, dict(instance.load_origins)["parallel"]) == (2, "default preset small")
    assert instance.load.context_length == 2048  # limited to the trained context length
    with pytest.raises(Conflict, match=KEY):
        await registry.client.delete_preset("small")
    assert not (await registry.client.set_default_preset(KEY, None)).HasField("default_preset")
    await registry.client.delete_preset("small")


async def test_presets_survive_a_restart(start: Any) -> None:
    first: Running = await start()
    await first.client.put_preset("precise", **PRECISE)
    await first.client.set_default_preset(KEY, "precise")
    await first.server.drain()
    second: Running = await start()
    async with second.client.watch() as view:
        assert view.presets["precise"].version == 1
        assert view.models[KEY].default_preset == "precise"


async def test_an_instance_keeps_the_settings_it_was_loaded_with(registry: Running) -> None:
    await registry.client.put_preset("precise", **PRECISE)
    instance = await registry.client.create(KEY, preset="precise")
    await registry.client.put_preset("precise", load={"parallel": 7})
    record = next(each for each in await registry.server._instance_store.all() if each.id == instance.id)
    assert record.presets is not None
    assert record.presets["chosen"]["settings"]["load"] == {"parallel": 3}
