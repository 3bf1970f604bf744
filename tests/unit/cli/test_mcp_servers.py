import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command.cli_server import ScriptedServer
from tests.unit.cli.conftest import Atelier

LIST = "GET /api/v1/mcp/servers"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.delenv("ATELIER_URL", raising=False)
    return tmp_path / "mcp.json"


def servers(file: Path) -> Any:
    return json.loads(file.read_text())["mcpServers"]


def test_a_command_is_added_with_all_its_options(atelier: Atelier, file: Path) -> None:
    file.write_text('{"inputs": [1], "mcpServers": {"old": {"command": "o"}}}')
    options = ("--env", "A=b=c", "--allow", "read", "--allow", "write", "--approve", "write", "--timeout", "9")
    options = (*options, "--sampling", "qwen3-4b", "--elicitation")
    result = atelier("mcp", "add", "files", *options, "--", "npx", "-y", "files", "--url", "x")
    assert result.exit_code == 0, result.stderr
    assert json.loads(file.read_text())["inputs"] == [1]
    assert servers(file) == {
        "old": {"command": "o"},
        "files": {
            "command": "npx",
            "args": ["-y", "files", "--url", "x"],
            "env": {"A": "b=c"},
            "allowedTools": ["read", "write"],
            "requireApproval": ["write"],
            "timeout": 9.0,
            "sampling": "qwen3-4b",
            "elicitation": True,
        },
    }
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_address_is_added(atelier: Atelier, file: Path) -> None:
    header = ("--header", "Authorization: Bearer ${TOKEN}")
    assert atelier("mcp", "add", "wiki", "--url", "https://w/mcp", *header, "--approve", "always").exit_code == 0
    assert servers(file)["wiki"] == {
        "url": "https://w/mcp",
        "headers": {"Authorization": "Bearer ${TOKEN}"},
        "requireApproval": "always",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "needs either a command or a url"),
        (["a", "--url", "https://a", "--", "b"], "needs either a command or a url"),
        (["a", "--url", "ftp://a"], "mcpServers.a.url"),
        (["a/b", "--", "b"], "label"),
        (["a", "--timeout", "0", "--", "b"], "mcpServers.a.timeout"),
        (["a", "--env", "b", "--", "c"], "NAME=VALUE"),
        (["a", "--approve", "always", "--approve", "b", "--", "c"], "cannot be combined"),
    ],
)
def test_invalid_arguments_are_reported_and_nothing_is_written(
    atelier: Atelier, file: Path, arguments: list[str], message: str
) -> None:
    result = atelier("mcp", "add", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not file.exists()


def test_a_label_cannot_be_used_twice(atelier: Atelier, file: Path) -> None:
    assert atelier("mcp", "add", "a", "--", "b").exit_code == 0
    assert "--replace" in atelier("mcp", "add", "a", "--", "c").stderr
    assert atelier("mcp", "add", "a", "--replace", "--", "c").exit_code == 0
    assert servers(file)["a"]["command"] == "c"


def test_a_server_is_removed(atelier: Atelier, file: Path) -> None:
    atelier("mcp", "add", "a", "--", "b")
    assert atelier("mcp", "rm", "a").exit_code == 0
    assert servers(file) == {}
    assert 'no server "a"' in atelier("mcp", "rm", "a").stderr


def test_an_invalid_file_is_not_overwritten(atelier: Atelier, file: Path) -> None:
    file.write_text("{")
    assert "line 1" in atelier("mcp", "add", "a", "--", "b").stderr
    assert file.read_text() == "{"


def test_the_file_of_another_machine_is_not_changed_from_here(
    atelier: Atelier, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_URL", "http://lab7:1234")
    assert "change it there" in atelier("mcp", "add", "a", "--", "b").stderr
    assert not file.exists()


def listed(**facts: Any) -> dict[str, Any]:
    known = {"label": "files", "kind": "command", "state": "open", "protocol": "2025-11-25", "tools": ["a", "b"]}
    return {**known, "allowed_tools": None, "require_approval": ["b", "c"], **facts}


def test_servers_are_listed(server: ScriptedServer, atelier: Atelier) -> None:
    closed = listed(label="wiki", kind="url", state="closed", tools=None, require_approval="always")
    reply = {"servers": [listed(), closed], "disabled": ["off"], "error": "mcpServers.a: no"}
    server.answers(LIST, reply)
    result = atelier("mcp", "ls")
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["files", "command", "open", "2", "b,", "c"],
        ["wiki", "url", "closed", "always"],
        ["off", "disabled"],
    ]
    assert "mcpServers.a: no" in result.stderr
    assert json.loads(atelier("mcp", "ls", "--json").stdout) == reply


def test_no_servers_say_how_to_add_one(server: ScriptedServer, atelier: Atelier) -> None:
    server.answers(LIST, {"servers": [], "disabled": [], "error": None})
    assert "atelier mcp add" in atelier("mcp", "ls").stderr


def test_a_server_is_tested(server: ScriptedServer, atelier: Atelier) -> None:
    tools = [
        {"name": "read", "description": "Reads\na file.", "allowed": True, "needs_approval": False},
        {"name": "write", "description": "", "allowed": True, "needs_approval": True},
        {"name": "drop", "description": "", "allowed": False, "needs_approval": False},
    ]
    reply = {"label": "my files", "protocol": "2025-11-25", "seconds": 0.4, "tools": tools}
    server.answers("POST /api/v1/mcp/servers/my%20files/test", reply)
    result = atelier("mcp", "test", "my files")
    assert "2025-11-25" in result.stderr
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["read", "yes", "Reads", "a", "file."],
        ["write", "asks"],
        ["drop", "no"],
    ]


def test_a_server_that_cannot_be_reached_is_an_exit_code(server: ScriptedServer, atelier: Atelier) -> None:
    server.refuses("POST /api/v1/mcp/servers/a/test", 424, 'The MCP server "a" ended, or \x1b]0;broke off.')
    result = atelier("mcp", "test", "a")
    assert result.exit_code == 1
    assert "broke off" in result.stderr
    assert "\x1b" not in result.stderr
