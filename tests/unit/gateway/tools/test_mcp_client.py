"""The operator's servers from their file; lists of tools, results and answers within their bounds."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from mcp_types import CallToolResult
from structlog.testing import capture_logs

from gateway.core.hosted_tool import ToolImage, ToolOutput
from gateway.core.mcp_server_config import ALWAYS, NEVER, Approval, Command, Endpoint, ServerConfig, Use
from gateway.core.schema_check import disagreement
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from gateway.tools.mcp_client.mcp_servers_file import ServersFile
from gateway.tools.mcp_client.tool_listing import ToolListing
from gateway.tools.mcp_client.tool_result import output_of

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def write(path: Path, servers: Any) -> None:
    path.write_text(servers if isinstance(servers, str) else json.dumps({"mcpServers": servers}))


def test_the_file_says_what_requests_may_use(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    write(
        path,
        {
            "files": {"command": "f", "args": ["a"], "env": {"K": "${V}"}, "requireApproval": ["write"], "timeout": 5},
            "wiki": {"url": "https://w", "allowedTools": ["find"], "requireApproval": "always", "sampling": "m"},
            "off": {"command": "x", "disabled": True},
        },
    )
    file = ServersFile(path, {"V": "1"})
    assert file.servers() == {
        "files": Use(
            ServerConfig("files", Command("f", ("a",), (("K", "1"),)), call_seconds=5),
            approval=Approval(frozenset({"write"})),
        ),
        "wiki": Use(ServerConfig("wiki", Endpoint("https://w"), sampling_model="m"), frozenset({"find"}), ALWAYS),
    }
    assert file.disabled == {"off"}


def test_the_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    file = ServersFile(path, {})
    assert file.servers() == {}
    write(path, {"a": {"command": "a"}})
    first = file.servers()
    assert list(first) == ["a"]
    assert file.servers() is first
    write(path, {"b": {"command": "b"}})
    os.utime(path, ns=(1, 1))
    assert list(file.servers()) == ["b"]
    path.unlink()
    assert file.servers() == {}


def test_the_last_valid_file_applies_while_the_present_one_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    file = ServersFile(path, {})
    write(path, {"a": {"command": "a"}})
    file.servers()
    write(path, {"b": {"command": 7}})
    with capture_logs() as logs:
        assert [list(file.servers()) for _ in range(3)] == [["a"]] * 3
    assert [entry["event"] for entry in logs] == ["mcp_file_wrong"]
    assert file.error == "mcpServers.b.command: Input should be a valid string"
    write(path, {"good": {"command": "c"}})
    assert list(file.servers()) == ["good"]
    assert file.error is None


@pytest.mark.parametrize(
    ("approval", "wanted"),
    [
        (NEVER, []),
        (ALWAYS, ["a", "b"]),
        (Approval(frozenset({"a"})), ["a"]),
        (Approval(None, frozenset({"a"})), ["b"]),
    ],
)
def test_approval_is_configured_for_each_tool(approval: Approval, wanted: list[str]) -> None:
    assert [tool for tool in ("a", "b") if approval.wanted(tool)] == wanted


def tool(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", **schema}}


def take(*tools: Any, **limits: Any) -> ToolListing:
    listing = ToolListing()
    listing.take({"tools": list(tools)}, PoolLimits(**limits))
    return listing


def test_the_total_size_of_a_servers_schemas_is_limited() -> None:
    listing = take(*(tool(f"t{i}", description="d" * 900) for i in range(10)), schemas=5000)
    assert len(listing.tools) == 5
    assert listing.left_out == {"its schema is too large": 5}


def test_a_tool_with_a_too_deeply_nested_schema_is_omitted() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(20_000):
        deep = {"type": "object", "items": deep}
    assert take({"name": "a", "inputSchema": deep}).left_out == {"its schema is too large": 1}


def test_a_tool_whose_schema_cannot_be_passed_on_is_omitted() -> None:
    listing = take(tool("a", properties={"n": {"maximum": 2**70}}), tool("b"))
    assert (list(listing.tools), listing.left_out) == (["b"], {"its schema cannot be passed on": 1})


def test_references_within_a_schema_are_kept() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "integer"}}}
    assert list(take(tool("a", **schema)).tools) == ["a"]


def test_valid_tools_of_a_page_are_kept() -> None:
    page: dict[str, Any] = {"tools": [tool("a"), tool("b c")], "nextCursor": "x", "_meta": {"a": 1}}
    ToolListing().take(page, PoolLimits())
    assert page["nextCursor"] == "x"
    assert [kept["name"] for kept in page["tools"]] == ["a"]


@pytest.mark.parametrize(
    ("schema", "value", "wrong"),
    [
        ({"type": "object", "required": ["a"]}, {}, "$: 'a' is a required property"),
        ({"properties": {"a": {"type": "integer"}}}, {"a": "1"}, "$.a: '1' is not of type 'integer'"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"const": 1}}}, {"a": 2}, "$.a: 1 was expected"),
        ({"type": "object"}, {"anything": 1}, None),
        ({"type": 7}, {}, None),
        ({"$ref": "#/nowhere"}, {}, None),
        ({"$ref": "https://example.org/schema"}, {}, None),
        ({"$ref": "#"}, {}, None),
        ({"$schema": "https://json-schema.org/draft-07/schema", "pattern": "^(a+)+$"}, "a" * 60 + "b", None),
        (
            {"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}]},
            "a" * 60 + "b",
            None,
        ),
    ],
)
def test_output_is_checked_against_its_schema(schema: Any, value: Any, wrong: str | None) -> None:
    assert disagreement(schema, value) == wrong


@pytest.mark.parametrize("additional", [False, {"type": "string"}])
def test_finding_additional_properties_does_not_run_patterns(additional: Any) -> None:
    started = time.perf_counter()
    schema = {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": additional}
    assert disagreement(schema, {"a" * 28 + "b": 1}) is None
    assert time.perf_counter() - started < 1
    assert disagreement({"additionalProperties": False}, {"a": 1}) is not None


def test_an_endless_schema_check_times_out() -> None:
    webs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 10} for i in range(40)}
    started = time.perf_counter()
    assert disagreement({"$ref": "#/$defs/d0", "$defs": webs | {"d40": False}}, {}) is None
    assert disagreement({"items": {"allOf": [{"type": "integer"}] * 1000}}, list(range(100_000))) is None
    assert time.perf_counter() - started < 5


def output(*content: Any, structured: Any = None, **limits: Any) -> ToolOutput:
    result = CallToolResult.model_validate({"content": content, "structuredContent": structured})
    return output_of(result, PoolLimits(**limits))


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def test_every_kind_of_content_is_converted() -> None:
    image = {"type": "image", "mimeType": "image/png", "data": "aGk="}
    found = output(
        text("one"),
        image,
        {"type": "audio", "mimeType": "audio/wav", "data": "aGk="},
        {"type": "resource_link", "name": "log", "uri": "file:///log", "description": "of today"},
        {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "its text"}},
        {"type": "resource", "resource": {"uri": "file:///a.bin", "mimeType": "application/pdf", "blob": "aGk="}},
        {"type": "resource", "resource": {"uri": "file:///a.png", "mimeType": "image/png", "blob": "aGk="}},
    )
    picture = ToolImage("image/png", "aGk=")
    assert found.pieces == (
        "one",
        picture,
        "[Audio (audio/wav) was left out.]",
        "[Resource log at file:///log: of today]",
        "its text",
        "[Resource file:///a.bin (application/pdf, binary) was left out.]",
        picture,
    )


def test_long_text_is_truncated_with_a_note() -> None:
    found = output(text("a" * 60), text("b" * 60), text("c" * 60), result=100)
    assert found.pieces == ("a" * 60, "b" * 39, "[The result was cut: 81 more characters were left out.]")


def test_a_long_series_of_empty_texts_is_not_kept() -> None:
    assert len(output(*[text("")] * 1000, result=100).pieces) == 100


def test_the_number_of_images_is_limited() -> None:
    image = {"type": "image", "mimeType": "image/png", "data": "aGk="}
    assert output(*[image] * 5, images=2).pieces[2:] == ("[3 images were left out.]",)


def test_structured_content_is_written_as_text_when_there_is_no_other() -> None:
    assert output(structured={"a": "ä"}).text == '{"a": "ä"}'
    assert output(text("a"), structured={"b": 1}).text == "a"
    assert "cut" in output(structured={"a": "b" * 200}, result=100).text
