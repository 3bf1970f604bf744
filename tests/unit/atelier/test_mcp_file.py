"""The form of mcp.json, and how it is written."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from atelier.mcp_file import LARGEST, WrongFile, entries_of, entry_of, read_document, write_document

ENVIRONMENT = {"TOKEN": "secret", "EMPTY": "", "HOME": "/home/a"}


def test_an_entry_of_another_mcp_host_is_read() -> None:
    document = {
        "inputs": [],
        "mcpServers": {
            "files": {"type": "stdio", "command": "npx", "args": ["-y", "files"], "env": {"A": "1"}, "icon": "x"},
            "My wiki": {"type": "http", "url": "https://wiki.example/mcp", "headers": {"Authorization": "Bearer x"}},
        },
    }
    files, wiki = entries_of(document, {}).values()
    assert (files.command, files.args, files.env) == ("npx", ["-y", "files"], {"A": "1"})
    assert (wiki.url, wiki.headers) == ("https://wiki.example/mcp", {"Authorization": "Bearer x"})
    assert (wiki.timeout, wiki.require_approval, wiki.allowed_tools, wiki.disabled) == (60, "never", None, False)


def test_environment_variables_are_substituted() -> None:
    given = {
        "command": "${HOME}/bin/server",
        "args": ["$TOKEN", "${env:TOKEN}", "${NOT:-else}", "${EMPTY:-else}", "a${EMPTY}b"],
        "env": {"KEY": "Bearer ${TOKEN}"},
    }
    entry = entry_of("a", given, ENVIRONMENT)
    assert entry.command == "/home/a/bin/server"
    assert entry.args == ["$TOKEN", "secret", "else", "else", "ab"]
    assert entry.env == {"KEY": "Bearer secret"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "mcpServers.a: needs either a command or a url"),
        ({"command": "a", "url": "https://a"}, "mcpServers.a: needs either a command or a url"),
        ({"command": 7}, "mcpServers.a.command: "),
        ({"command": ""}, "mcpServers.a.command: "),
        ({"command": "a", "args": ["b", 7]}, "mcpServers.a.args[1]: "),
        ({"command": "a", "env": {"B": 7}}, "mcpServers.a.env.B: "),
        ({"url": "file:///etc/passwd"}, "mcpServers.a.url: "),
        ({"type": "sse", "url": "https://a"}, "mcpServers.a.type: "),
        ({"url": "https://a", "timeout": -1}, "mcpServers.a.timeout: "),
        ({"url": "https://a", "timeout": float("nan")}, "mcpServers.a.timeout: "),
        ({"url": "https://a", "requireApproval": "often"}, "mcpServers.a.requireApproval"),
        ({"url": "https://a", "headers": {"K": "${NOT}"}}, "mcpServers.a.headers.K: there is no variable NOT"),
        (
            {"command": "a", "env": {"K": "${ATELIER_API_KEY}"}},
            "mcpServers.a.env.K: ATELIER_API_KEY is a variable of this",
        ),
        ("a string", "mcpServers.a: "),
    ],
)
def test_an_error_names_its_place(given: Any, message: str) -> None:
    with pytest.raises(WrongFile) as caught:
        entry_of("a", given, ENVIRONMENT | {"ATELIER_API_KEY": "secret"})
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("label", ["", "a/b", "a" * 65, "\n", "../a", "ä"])
def test_labels_are_plain(label: str) -> None:
    with pytest.raises(WrongFile):
        entry_of(label, {"command": "a"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mcpServers": {', "line 1, column"),
        ("[]", "not an object"),
        ('{"mcpServers": []}', "not an object"),
        ("[" * 100_000, "not JSON"),
        (" " * (LARGEST + 1), "bytes"),
    ],
)
def test_an_invalid_file_is_reported(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mcp.json").write_text(text)
    with pytest.raises(WrongFile, match=message):
        read_document(tmp_path / "mcp.json")


def test_a_file_is_written_atomically_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "mcp.json", tmp_path / "mcp.json"
    link.symlink_to(path)
    assert read_document(link) == {}
    write_document(link, {"mcpServers": {"a": {"command": "ä"}}})
    assert link.is_symlink()
    assert json.loads(path.read_text()) == read_document(link)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["mcp.json"]
