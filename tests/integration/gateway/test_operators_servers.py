"""The operator's MCP servers: their state, their test, and what they may ask models and users."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitRequestParams, ElicitResult

from gateway.core.mcp_server_config import Command, ServerConfig
from gateway.core.outbound import AddressGuard
from gateway.tools.mcp_client.connection_pool import ServerPool
from gateway.tools.mcp_client.server_callbacks import ElicitationHandler
from tests.integration.mcp_client.test_pool import ODD
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import running_gateway, until

HELLO = {"messages": [{"role": "user", "content": {"type": "text", "text": "Hello"}}], "maxTokens": 50}


def write(home: Path, **servers: Any) -> None:
    (home / "mcp.json").write_text(json.dumps({"mcpServers": servers}))


def odd(behaviour: str = "", **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-S", "-E", ODD, behaviour], **more}


async def test_servers_are_listed_and_tested(registry: FakeRegistry, tmp_path: Path) -> None:
    write(
        tmp_path,
        files=odd(allowedTools=["echo", "hang"], requireApproval=["hang"], env={"K": "secret"}),
        off=odd(disabled=True),
    )
    async with running_gateway(registry, home=tmp_path) as gateway, gateway.client() as client:
        listed = (await client.get("/api/v1/mcp/servers")).json()
        assert listed["disabled"] == ["off"]
        assert listed["servers"] == [
            {
                "label": "files",
                "kind": "command",
                "state": "closed",
                "protocol": None,
                "tools": None,
                "allowed_tools": ["echo", "hang"],
                "require_approval": ["hang"],
            }
        ]
        tried = (await client.post("/api/v1/mcp/servers/files/test")).json()
        assert tried["protocol"] == "2025-11-25"
        assert [(tool["name"], tool["allowed"], tool["needs_approval"]) for tool in tried["tools"]] == [
            ("echo", True, False),
            ("crash", False, False),
            ("hang", True, True),
            ("work", False, False),
        ]
        after = await client.get("/api/v1/mcp/servers")
        assert after.json()["servers"][0] | {"state": "open", "tools": ["echo", "hang"]} == after.json()["servers"][0]
        assert "secret" not in after.text
        assert ODD not in after.text

        write(tmp_path, files=odd("crash at start"))
        refused = await client.post("/api/v1/mcp/servers/files/test")
        assert refused.status_code == 424
        assert refused.json()["error"]["code"] == "mcp_connection_error"
        assert (await client.post("/api/v1/mcp/servers/off/test")).status_code == 404
        (tmp_path / "mcp.json").write_text("{")
        assert "line 1" in (await client.get("/api/v1/mcp/servers")).json()["error"]


async def asked(
    pool: ServerPool,
    server: ServerConfig,
    method: str,
    params: Mapping[str, Any],
    elicit: ElicitationHandler | None = None,
) -> Any:
    return json.loads((await pool.call(server, method, params, elicit=elicit)).text)


async def test_a_server_removed_from_the_file_ends(registry: FakeRegistry, tmp_path: Path) -> None:
    write(tmp_path, files=odd(), more=odd("slow"))
    async with running_gateway(registry, home=tmp_path) as gateway, gateway.client() as client:
        pool = gateway.gateway.mcp_pool
        before = gateway.gateway.mcp_file.servers()
        for label in before:
            assert (await client.post(f"/api/v1/mcp/servers/{label}/test")).is_success
        write(tmp_path, more=odd("slow"))
        assert [each["label"] for each in (await client.get("/api/v1/mcp/servers")).json()["servers"]] == ["more"]
        await until(lambda: pool.state(before["files"].server) == "closed")
        assert pool.state(before["more"].server) == "open"


async def test_a_server_asks_the_model_that_the_operator_chose(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.script = {"text": "Hello to you."}
    await registry.start_instance()
    write(tmp_path, chosen=odd("asks", sampling=KEY), none=odd("asks"), missing=odd("asks", sampling="no-such-model"))
    async with running_gateway(registry, home=tmp_path) as gateway:
        pool, uses = gateway.gateway.mcp_pool, gateway.gateway.mcp_file.servers()
        sampling = "sampling/createMessage"
        chosen = uses["chosen"].server
        answer = await asked(pool, chosen, sampling, HELLO | {"systemPrompt": "Be kind.", "temperature": 0})
        assert answer["client"] == {"sampling": {}}
        assert answer["reply"]["content"] == {"type": "text", "text": "Hello to you."}
        assert (answer["reply"]["model"], answer["reply"]["stopReason"]) == (KEY, "endTurn")

        tool = {"name": "t", "inputSchema": {"type": "object"}}
        with_tools = await asked(pool, chosen, sampling, HELLO | {"tools": [tool]})
        assert "tools" in with_tools["error"]["message"]
        sound = {"role": "user", "content": {"type": "audio", "mimeType": "audio/wav", "data": "aGk="}}
        with_sound = await asked(pool, chosen, sampling, HELLO | {"messages": [sound]})
        assert "audio is not supported" in with_sound["error"]["message"]
        assert "no-such-model" in (await asked(pool, uses["missing"].server, sampling, HELLO))["error"]["message"]

        refused = await asked(pool, uses["none"].server, sampling, HELLO)
        assert refused["client"] == {}
        assert refused["error"]
        assert (await asked(pool, uses["none"].server, "roots/list", {}))["error"]


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_server_asks_the_user_where_that_is_allowed(allowed: bool) -> None:
    questions: list[ElicitRequestParams] = []

    async def elicit(server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
        questions.append(params)
        return ElicitResult(action="accept", content={"name": "Ada"})

    pool = ServerPool(AddressGuard())
    server = ServerConfig("odd", Command(sys.executable, ("-S", "-E", ODD, "asks")), elicitation=allowed)
    question = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
    answer = await asked(pool, server, "elicitation/create", question, elicit)
    await pool.close()
    assert len(questions) == allowed
    assert ("elicitation" in answer["client"]) is allowed
    assert (answer["reply"] or {}).get("content") == ({"name": "Ada"} if allowed else None)
