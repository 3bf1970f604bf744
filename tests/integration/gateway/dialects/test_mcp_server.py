"""The MCP server, driven by the official client: the results of its tools, resources and prompts."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated
from mcp_types import ResourceTemplateReference, TextContent, TextResourceContents

from atelier.errors import HubUnavailable, to_message
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until
from tests.support.mcp.mcp_client import MODES, held_mcp_client, mcp_client

TOOLS = {
    *("chat", "complete", "embed", "rerank", "tokenize", "list_models", "model_info", "load_model"),
    *("unload_model", "search_models", "download_model", "effective_settings"),
}


@pytest.fixture(params=MODES)
async def mcp(request: pytest.FixtureRequest, gateway: RunningGateway) -> AsyncIterator[Client]:
    async with held_mcp_client(gateway.url, request.param) as client:
        yield client


@pytest.fixture
async def modern(gateway: RunningGateway) -> AsyncIterator[Client]:
    async with held_mcp_client(gateway.url) as client:
        yield client


async def called(mcp: Client, name: str, **arguments: Any) -> Any:
    """The structured result; raises if the client finds that it violates the output schema."""
    result = await mcp.call_tool(name, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refused(mcp: Client, name: str, **arguments: Any) -> str:
    result = await mcp.call_tool(name, arguments)
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def read(mcp: Client, uri: str) -> Any:
    (content,) = (await mcp.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert (content.uri, content.mime_type) == (uri, "application/json")
    return json.loads(content.text)


async def put_preset(gateway: RunningGateway, name: str, **prompt: str) -> None:
    async with gateway.client() as http:
        body = {"prompt": prompt, "inference": {"temperature": 0.2, "max_tokens": 3}}
        assert (await http.put(f"/api/v1/presets/{name}", json=body)).status_code == 200


async def test_both_protocol_versions_are_supported(gateway: RunningGateway) -> None:
    versions = []
    for mode in MODES:
        async with mcp_client(gateway.url, mode) as client:
            versions.append(client.protocol_version)
            assert client.server_info is not None
            assert client.server_info.name == "lm-atelier"
    assert versions == ["2026-07-28", "2025-11-25"]


async def test_every_tool_has_schemas_and_hints(mcp: Client) -> None:
    tools = (await mcp.list_tools()).tools
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert tool.input_schema["type"] == "object"
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert tool.annotations is not None
        assert tool.annotations.title == tool.title
        assert None not in (tool.annotations.read_only_hint, tool.annotations.open_world_hint)
    changing = {tool.name for tool in tools if tool.annotations and not tool.annotations.read_only_hint}
    assert changing == {"load_model", "unload_model", "download_model"}


async def test_a_chat_is_answered_with_its_usage(mcp: Client) -> None:
    result = await mcp.call_tool("chat", {"model": "tiny", "prompt": "one two three"})
    assert [content.text for content in result.content if isinstance(content, TextContent)] == ["one two three"]
    assert result.structured_content is not None
    assert result.structured_content["model"] == KEY
    assert result.structured_content["usage"] == {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 3}


async def test_a_chat_has_messages_settings_and_a_preset(mcp: Client, gateway: RunningGateway) -> None:
    await put_preset(gateway, "brief", system_prompt="be brief")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    messages.append({"role": "user", "content": "one two three four"})
    result = await called(mcp, "chat", model=KEY, messages=messages, preset="brief")
    assert (result["text"], result["finish_reason"]) == ("one two three", "length")
    result = await called(mcp, "chat", model=KEY, messages=messages, preset="brief", settings={"max_tokens": 2})
    assert result["text"] == "one two"
    result = await called(mcp, "chat", model=KEY, messages=messages, settings={"stop": ["two"]})
    assert (result["text"], result["finish_reason"]) == ("one ", "stop")


async def test_text_is_sent_as_progress_while_it_is_generated(mcp: Client, registry: FakeRegistry) -> None:
    registry.script = {"text": "one two three four", "reasoning": "hm hm", "step_seconds": 0.01}
    reported: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, message))

    result = await mcp.call_tool("chat", {"model": KEY, "prompt": "x"}, progress_callback=on_progress)
    await until(lambda: "".join(text or "" for _, text in reported) == "one two three four")
    steps = [progress for progress, _ in reported]
    assert len(steps) > 2
    assert steps == sorted(set(steps))
    assert result.structured_content is not None
    assert result.structured_content["reasoning"] == "hm hm"


async def test_a_load_is_sent_as_progress_before_the_first_text(mcp: Client, registry: FakeRegistry) -> None:
    registry.hold_loads = True
    reported: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, message))

    asked = asyncio.create_task(mcp.call_tool("chat", {"model": KEY, "prompt": "one"}, progress_callback=on_progress))
    await asyncio.wait_for(registry.asked.wait(), PATIENCE)
    for done in (0.25, 0.75):
        registry.set_instance(pb.Instance(id=KEY, model_key=KEY, state=pb.LOADING, load_progress=done))
        await until(lambda done=done: (done, None) in reported)
    registry.released.set()
    assert not (await asyncio.wait_for(asked, PATIENCE)).is_error
    await until(lambda: len(reported) == 3)
    assert reported == [(0.25, None), (0.75, None), (1, "one")]


async def test_a_text_is_continued(mcp: Client, registry: FakeRegistry) -> None:
    registry.script = {"text": "and so on"}
    assert (await called(mcp, "complete", model=KEY, prompt="Once"))["text"] == "and so on"


async def test_texts_are_embedded_ranked_and_tokenized(
    mcp: Client, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.models["acme/vectors"] = model_message("acme/vectors", embedding=True)
    registry.tell(pb.Change(model=registry.models["acme/vectors"]))
    await until(lambda: "acme/vectors" in gateway.gateway.watcher.snapshot.models)
    vectors = await called(mcp, "embed", model="acme/vectors", texts=["a", "b c"])
    assert [len(vector) for vector in vectors["embeddings"]] == [4, 4]
    ranking = await called(mcp, "rerank", model="acme/vectors", query="a", documents=["x", "a b", "c"], top_n=2)
    assert len(ranking["results"]) == 2
    tokens = await called(mcp, "tokenize", model=KEY, text="one two")
    assert (tokens["count"], [token["piece"] for token in tokens["tokens"]]) == (2, ["one", " two"])


async def test_models_are_listed_described_loaded_and_unloaded(mcp: Client) -> None:
    assert [model["key"] for model in (await called(mcp, "list_models"))["models"]] == [KEY]
    assert (await called(mcp, "model_info", model="tiny"))["licence"] == "mit"
    loaded = await called(mcp, "load_model", model=KEY, settings={"context_length": 2048}, identifier="mine")
    assert (loaded["instance_id"], loaded["context_length"]) == ("mine", 2048)
    (model,) = (await called(mcp, "list_models"))["models"]
    assert [instance["id"] for instance in model["loaded_instances"]] == ["mine"]
    assert await called(mcp, "unload_model", instance_id="mine") == {"instance_id": "mine"}
    assert "No instance" in await refused(mcp, "unload_model", instance_id="mine")


async def test_settings_are_returned_with_their_origins(mcp: Client, gateway: RunningGateway) -> None:
    await put_preset(gateway, "cool", system_prompt="be cool")
    result = await called(mcp, "effective_settings", model=KEY, preset="cool")
    assert result["settings"]["temperature"] == {"value": 0.2, "origin": "preset cool"}
    async with gateway.client() as http:
        assert (await http.get(f"/api/v1/models/{KEY}/settings?preset=cool")).json() == result


async def test_the_hub_is_searched(mcp: Client, registry: FakeRegistry) -> None:
    registry.found = [pb.Repository(id="acme/tiny-gguf", author="acme")]
    assert [found["id"] for found in (await called(mcp, "search_models", query="tiny"))["models"]] == ["acme/tiny-gguf"]


async def test_a_download_reports_its_bytes_until_it_ends(mcp: Client, registry: FakeRegistry) -> None:
    reported: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, total))

    asked = asyncio.create_task(mcp.call_tool("download_model", {"model": "acme/new"}, progress_callback=on_progress))
    await until(lambda: registry.downloads)
    registry.set_download(state=pb.DOWNLOAD_DOWNLOADING, done_bytes=400)
    await until(lambda: (400, 1000) in reported)
    registry.models["acme/new"] = model_message("acme/new")
    registry.tell(pb.Change(model=registry.models["acme/new"]))
    registry.set_download(state=pb.DOWNLOAD_COMPLETED, done_bytes=1000, model_key="acme/new")
    result = await asyncio.wait_for(asked, PATIENCE)
    assert result.structured_content is not None
    assert (result.structured_content["status"], result.structured_content["model_key"]) == ("downloaded", "acme/new")
    assert await called(mcp, "download_model", model=KEY) == {
        "status": "already_downloaded",
        "model_key": KEY,
        "download": None,
    }


async def test_a_download_continues_when_its_caller_disconnects(modern: Client, registry: FakeRegistry) -> None:
    asked = asyncio.create_task(modern.call_tool("download_model", {"model": "acme/new"}))
    await until(lambda: registry.downloads)
    asked.cancel()
    await asyncio.wait([asked])
    await called(modern, "list_models")
    assert registry.downloads["d1"].state == pb.DOWNLOAD_QUEUED


async def test_a_download_that_fails_says_why(mcp: Client, registry: FakeRegistry) -> None:
    asked = asyncio.create_task(mcp.call_tool("download_model", {"model": "acme/new"}))
    await until(lambda: registry.downloads)
    registry.set_download(state=pb.DOWNLOAD_FAILED, error=to_message(HubUnavailable("The hub is away.")))
    result = await asyncio.wait_for(asked, PATIENCE)
    assert result.is_error
    assert [content.text for content in result.content if isinstance(content, TextContent)] == ["The hub is away."]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("chat", {"model": "nothing", "prompt": "x"}, 'There is no model "nothing"'),
        ("chat", {"model": KEY}, "Give either messages or a prompt."),
        ("chat", {"prompt": "x"}, "model: is required"),
        ("chat", {"model": KEY, "prompt": "x", "surprise": 1}, "surprise: there is no such field"),
        ("chat", {"model": KEY, "prompt": "x", "settings": {"temperature": -1}}, "settings.temperature: must be"),
        ("chat", {"model": KEY, "prompt": "x", "settings": {"temperature": "1"}}, "settings.temperature: must be"),
        ("chat", {"model": KEY, "prompt": "x", "settings": {"chat_template": "x"}}, "settings.chat_template: there is"),
        ("chat", {"model": KEY, "prompt": "x", "settings": {"seed": 2**70}}, "settings.seed: "),
        ("chat", {"model": KEY, "prompt": "x", "preset": "none"}, 'preset: there is no preset "none"'),
        ("effective_settings", {"model": "nothing"}, 'There is no model "nothing"'),
        ("embed", {"model": KEY, "texts": []}, "texts: must have at least 1 item"),
    ],
)
async def test_an_invalid_call_returns_an_error_result(
    modern: Client, tool: str, arguments: dict[str, Any], message: str
) -> None:
    assert (await refused(modern, tool, **arguments)).startswith(message)


async def test_an_unknown_tool_is_a_protocol_error(mcp: Client) -> None:
    with pytest.raises(MCPError, match='Unknown tool: "explode"'):
        await mcp.call_tool("explode", {})


async def test_resources_are_listed_and_read(mcp: Client, gateway: RunningGateway, registry: FakeRegistry) -> None:
    await registry.start_instance()
    await put_preset(gateway, "very brief", system_prompt="be brief")
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    uris = {resource.uri for resource in (await mcp.list_resources()).resources}
    assert uris == {
        *("atelier://models", "atelier://instances", "atelier://presets", "atelier://logs", "atelier://metrics"),
        *(f"atelier://models/{KEY}", f"atelier://instances/{KEY}", "atelier://presets/very%20brief"),
    }
    assert [model["key"] for model in (await read(mcp, "atelier://models"))["models"]] == [KEY]
    assert (await read(mcp, f"atelier://models/{KEY}"))["chat_template"] == "{{ messages }}"
    assert (await read(mcp, f"atelier://instances/{KEY}"))["state"] == "ready"
    assert (await read(mcp, "atelier://presets/very%20brief"))["prompt"] == {"system_prompt": "be brief"}
    assert [preset["name"] for preset in (await read(mcp, "atelier://presets"))["presets"]] == ["very brief"]
    series = (await read(mcp, "atelier://metrics"))["series"]
    assert {"labels": {}, "value": 1.0} in series["atelier_models"]


async def test_resource_templates_name_one_of_each_kind_and_complete_its_name(
    mcp: Client, gateway: RunningGateway
) -> None:
    await put_preset(gateway, "brief", system_prompt="be brief")
    templates = {each.name: each.uri_template for each in (await mcp.list_resource_templates()).resource_templates}
    assert set(templates) == {"models", "instances", "presets", "logs"}

    async def completed(kind: str, begun: str) -> list[str]:
        ref = ResourceTemplateReference(uri=templates[kind])
        return (await mcp.complete(ref, {"name": "x", "value": begun})).completion.values

    assert await completed("models", "ti") == [KEY]
    assert await completed("models", "nothing") == []
    assert await completed("presets", "") == ["brief"]


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "atelier://models/nothing",
            "atelier://nothing",
            "atelier://logs/..%2F..%2Fetc%2Fpasswd",
            "file:///etc/passwd",
        ),
        *("atelier://logs/%2Fetc%2Fpasswd", "atelier://logs/../secret", "atelier://logs/link", "atelier://presets/%00"),
    ],
)
async def test_an_unknown_resource_is_an_error(registry: FakeRegistry, tmp_path: Path, uri: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "secret.log").write_text("secret\n")
    (tmp_path / "logs" / "link.log").symlink_to(tmp_path / "secret.log")
    async with running_gateway(registry, home=tmp_path) as gateway, mcp_client(gateway.url) as mcp:
        with pytest.raises(MCPError, match="There is no resource") as refused:
            await mcp.read_resource(uri)
        assert refused.value.data == {"code": "not_found", "uri": uri}


async def test_the_end_of_a_log_is_read(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gateway.log").write_text("early\n" * 20_000 + "late\n")
    async with running_gateway(registry, home=tmp_path) as gateway, mcp_client(gateway.url) as mcp:
        assert [log["name"] for log in (await read(mcp, "atelier://logs"))["logs"]] == ["gateway"]
        lines = (await read(mcp, "atelier://logs/gateway"))["lines"]
    assert lines[-1] == "late"
    assert 1000 < len(lines) < 20_000


async def test_presets_with_a_system_prompt_are_prompts(mcp: Client, gateway: RunningGateway) -> None:
    await put_preset(gateway, "brief", system_prompt="be brief")
    await put_preset(gateway, "silent")
    (prompt,) = (await mcp.list_prompts()).prompts
    assert prompt.name == "brief"

    async def said(arguments: dict[str, str]) -> list[str]:
        messages = (await mcp.get_prompt("brief", arguments)).messages
        return [message.content.text for message in messages if isinstance(message.content, TextContent)]

    assert await said({}) == ["be brief"]
    assert await said({"text": "hello"}) == ["be brief", "hello"]
    with pytest.raises(MCPError, match='There is no preset "silent" with a system prompt'):
        await mcp.get_prompt("silent")


async def test_subscribed_clients_are_notified_of_changes(
    modern: Client, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    uri = f"atelier://instances/{KEY}"
    async with modern.listen(
        prompts_list_changed=True, resources_list_changed=True, resource_subscriptions=[uri]
    ) as events:
        async with asyncio.timeout(PATIENCE):
            await registry.start_instance()
            assert [await anext(events), await anext(events)] == [ResourcesListChanged(), ResourceUpdated(uri)]
            await put_preset(gateway, "brief", system_prompt="be brief")
            assert {await anext(events), await anext(events)} == {ResourcesListChanged(), PromptsListChanged()}


async def test_subscribed_clients_are_notified_when_the_server_stops(modern: Client, gateway: RunningGateway) -> None:
    async with modern.listen(resources_list_changed=True) as events, asyncio.timeout(PATIENCE):
        await gateway.gateway.drain(0)
        assert [event async for event in events] == []
