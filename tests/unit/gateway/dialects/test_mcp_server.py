"""The MCP server's schemas, names, prompts and changes, without a server around them."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from mcp.server.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated
from prometheus_client import CollectorRegistry

from atelier.errors import InvalidRequest, PresetNotFound
from atelier.metrics import GatewayMetrics
from atelier.settings import TABLE
from atelier.settings.preset import Preset
from atelier.submission import JsonSchema
from gateway.core.call import Chat, Text
from gateway.dialects.mcp.inference_tools import call_of, messages_of
from gateway.dialects.mcp.mcp_errors import error_body
from gateway.dialects.mcp.mcp_methods import matching
from gateway.dialects.mcp.mcp_prompts import filled, listed
from gateway.dialects.mcp.mcp_resources import TEMPLATES, LogFiles, entry_uri, kind_of, list_uri, metric_series
from gateway.dialects.mcp.mcp_subscriptions import events_between
from gateway.dialects.mcp.tool_definition import ToolDefinition
from gateway.dialects.mcp.tool_schemas import ChatInput, CompleteInput, InferenceSettings, LoadSettings
from gateway.dialects.mcp.tool_table import TOOLS
from gateway.dialects.openai.chat_prompt import chat_messages
from gateway.fleet.snapshot import Instance, InstanceState, Model, Snapshot

BRIEF = Preset(name="brief", settings={"prompt": {"system_prompt": "be brief"}})
COLD = Preset(name="cold", settings={"inference": {"temperature": 0.0}})


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tools_schemas_are_schemas_of_objects(tool: ToolDefinition[Any]) -> None:
    entry = tool.entry()
    for schema in (entry.input_schema, entry.output_schema):
        assert schema is not None
        assert schema["type"] == "object"
        jsonschema_rs.meta.validate(schema)
    assert entry.input_schema["additionalProperties"] is False
    assert entry.description
    assert entry.title


def test_destructive_and_open_world_tools_are_marked() -> None:
    assert [tool.name for tool in TOOLS if tool.hints.destroys] == ["unload_model"]
    assert {tool.name for tool in TOOLS if tool.hints.open_world} == {"search_models", "download_model"}


def test_the_documentation_names_every_tool_with_its_fields_and_every_resource() -> None:
    page = (Path(__file__).parents[4] / "docs" / "mcp.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for tool in TOOLS:
        assert all(f"`{name}`" in rows[tool.name] for name in tool.input.model_fields), tool.name
    for template in TEMPLATES.values():
        assert f"`{template}`" in page


def test_a_tools_settings_are_those_of_the_settings_table() -> None:
    assert set(InferenceSettings.model_fields) == {*TABLE["inference"], "stop"}
    assert set(LoadSettings.model_fields) == set(TABLE["load"])


def test_a_chat_becomes_a_call() -> None:
    turns: Any = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    asked = ChatInput.model_validate(
        {"model": "m", "messages": turns, "preset": "p", "settings": {"seed": 1}, "json_schema": {"type": "object"}}
    )
    call = call_of(asked, Chat.of(chat_messages(messages_of(asked))))
    assert call.prompts == [Chat(turns)]
    assert (call.model, call.preset, call.settings) == ("m", "p", {"seed": 1})
    assert call.constraint == JsonSchema('{"type": "object"}')


def test_a_prompt_is_a_user_message_or_a_text_to_continue() -> None:
    (message,) = chat_messages(messages_of(ChatInput(model="m", prompt="hi")))
    assert message == {"role": "user", "content": "hi"}
    call = call_of(CompleteInput(model="m", prompt="Once"), Text("Once"))
    assert (call.prompts, call.settings, call.constraint) == ([Text("Once")], {}, None)


@pytest.mark.parametrize("given", [{}, {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}])
def test_a_chat_takes_either_messages_or_a_prompt(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="either messages or a prompt"):
        messages_of(ChatInput.model_validate({"model": "m", **given}))


@pytest.mark.parametrize(
    ("kind", "name", "uri"),
    [
        ("models", "acme/tiny@q4", "atelier://models/acme/tiny@q4"),
        ("instances", "acme/tiny:2", "atelier://instances/acme/tiny:2"),
        ("presets", "very brief", "atelier://presets/very%20brief"),
        ("presets", "a+b", "atelier://presets/a%2Bb"),
        ("logs", "gateway", "atelier://logs/gateway"),
    ],
)
def test_a_uri_is_decoded_to_its_name(kind: str, name: str, uri: str) -> None:
    assert entry_uri(kind, name) == uri
    assert kind_of(uri) == (kind, name)
    assert kind_of(list_uri(kind)) == (kind, None)


@pytest.mark.parametrize(
    "uri", ["", "atelier://", "atelier://others", "atelier://logs/a/b", "http://models", "atelier://models\0", "models"]
)
def test_a_foreign_uri_has_no_name(uri: str) -> None:
    assert kind_of(uri) is None


def test_a_log_is_a_file_of_the_directory_and_no_link(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "folder.log").mkdir(parents=True)
    (logs / "worker.log").write_text("one\n\ntwo\n")
    (logs / "notes.txt").write_text("secret")
    (tmp_path / "secret.log").write_text("secret")
    (logs / "link.log").symlink_to(tmp_path / "secret.log")
    found = LogFiles(logs)
    assert found.names() == ["worker"]
    assert found.one("worker") == {"name": "worker", "lines": ["one", "two"]}
    for name in ("link", "notes", "folder", "../secret", str(tmp_path / "secret"), ""):
        assert found.one(name) is None
    assert found.all()["logs"][0]["size_bytes"] == 9
    assert LogFiles(tmp_path / "nowhere").all() == {"logs": []}


def test_metrics_omit_histogram_buckets() -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.count_request("/mcp", 200, 0.5)
    series = metric_series(metrics.registry)["series"]
    assert series["atelier_requests_total"] == [{"labels": {"route": "/mcp", "status": "200"}, "value": 1.0}]
    assert series["atelier_request_seconds_sum"] == [{"labels": {"route": "/mcp"}, "value": 0.5}]
    assert not [name for name in series if name.endswith(("_bucket", "_created"))]


def test_presets_with_a_system_prompt_are_prompts() -> None:
    snapshot = Snapshot(presets={"brief": BRIEF, "cold": COLD})
    assert [prompt.name for prompt in listed(snapshot)] == ["brief"]
    said = filled(snapshot, "brief", "hello").messages
    assert [(message.role, message.content.text) for message in said if message.content.type == "text"] == [
        ("user", "be brief"),
        ("user", "hello"),
    ]
    with pytest.raises(PresetNotFound, match="Near names: brief"):
        filled(snapshot, "brif", None)


def test_changes_are_reported_for_lists_and_entries() -> None:
    model = Model(key="a/b")
    ready = Instance(id="a/b", model_key="a/b", state=InstanceState.READY)
    one, two = Snapshot(models={"a/b": model}), Snapshot(models={"a/b": model}, instances={"a/b": ready})
    updates = [ResourceUpdated("atelier://instances"), ResourceUpdated("atelier://instances/a/b")]
    assert list(events_between(one, two)) == [ResourcesListChanged(), *updates]
    assert list(events_between(two, one)) == [ResourcesListChanged(), *updates]
    busy = Snapshot(
        models={"a/b": model},
        instances={"a/b": Instance(id="a/b", model_key="a/b", state=InstanceState.READY, active=1)},
    )
    assert list(events_between(two, busy)) == updates
    assert list(events_between(two, two)) == []


def test_the_list_of_prompts_changes_only_with_system_prompts() -> None:
    before, after = Snapshot(presets={"cold": COLD}), Snapshot(presets={"cold": COLD, "brief": BRIEF})
    assert PromptsListChanged() in list(events_between(before, after))
    warmer = Preset(name="cold", settings={"inference": {"temperature": 1.0}}, version=2)
    assert PromptsListChanged() not in list(events_between(before, Snapshot(presets={"cold": warmer})))


def test_completions_by_prefix_come_first() -> None:
    assert matching("ti", ["acme/tiny", "tiger", "other"]) == ["tiger", "acme/tiny"]


def test_an_error_before_a_message_is_a_json_rpc_error() -> None:
    error = error_body(InvalidRequest("x: is wrong"), "r")
    assert (error["jsonrpc"], error["id"], error["error"]["message"]) == ("2.0", None, "x: is wrong")
