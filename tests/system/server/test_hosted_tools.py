"""The real model calls a tool of a published filesystem server, and answers with its result.

A model this small answers with a tool's result only after it has seen how that is done: its chats begin with
three such exchanges, which a preset's chat template puts before them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.command.server_process import MODEL, Server, put_starter, serving
from tests.support.mcp.npm_servers import filesystem

pytestmark = pytest.mark.system

TEXT = "The kettle in the kitchen is blue."
BEFORE = {"a.txt": "The train leaves at nine.", "b.txt": "Maria has a red bicycle.", "c.txt": "It rains in Bergen."}
SECONDS = 120.0


def question(file: str) -> str:
    return f"What does {file} say?"


def exchange(file: str, text: str) -> str:
    call = json.dumps({"name": "read_text_file", "arguments": {"path": file}})
    returned = f"The function read_text_file returned:\n{text}"
    turns = (("user", question(file)), ("assistant", call), ("user", returned), ("assistant", f"It says: {text}"))
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


EACH = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
TEMPLATE = (
    "{% for message in messages if message.role == 'system' %}" + EACH + "{% endfor %}"
    "{% raw %}" + "".join(exchange(file, text) for file, text in BEFORE.items()) + "{% endraw %}"
    "{% for message in messages if message.role != 'system' %}" + EACH + "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, with the exchanges that came before."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes")
    (folder / "note.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_model: Path, folder: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server") / "home"
    put_starter(home, starter_model)
    command, *args = filesystem(folder)
    # Started in its own folder, so that the model's text is the same wherever the tests run.
    entry = {"command": command, "args": args, "cwd": str(folder), "allowedTools": ["read_text_file"]}
    (home / "mcp.json").write_text(json.dumps({"mcpServers": {"files": entry}}))
    with serving(home) as running:
        preset = {"prompt": {"chat_template": TEMPLATE}, "inference": {"temperature": 0.0, "max_tokens": 60}}
        httpx.put(f"{running.url}/api/v1/presets/reader", json=preset).raise_for_status()
        yield running


def post(server: Server, path: str, body: dict[str, Any]) -> Any:
    reply = httpx.post(f"{server.url}{path}", json={"model": MODEL, "preset": "reader", **body}, timeout=SECONDS)
    assert reply.is_success, reply.text
    return reply.json()


def test_lmstudios_chat_answers_with_the_tools_result(server: Server) -> None:
    body = {"input": question("note.txt"), "integrations": ["mcp/files"], "tool_choice": "required"}
    *calls, answer = post(server, "/api/v1/chat", body)["output"]
    assert {(each["type"], each["tool"]) for each in calls} == {("tool_call", "read_text_file")}
    assert calls[0]["arguments"]["path"] == "note.txt"
    assert TEXT in calls[0]["output"]
    assert (answer["type"], TEXT in answer["content"]) == ("message", True), answer


def test_a_response_answers_with_the_tools_result(server: Server) -> None:
    tools: Any = [{"type": "mcp", "server_label": "files"}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=SECONDS, max_retries=0) as client:
        reply = client.responses.create(
            model=MODEL,
            input=question("note.txt"),
            tools=tools,
            tool_choice="required",
            extra_body={"preset": "reader"},
        )
    calls = [item for item in reply.output if item.type == "mcp_call"]
    assert [(call.name, call.output) for call in calls][:1] == [("read_text_file", TEXT)]
    assert TEXT in reply.output_text


def test_a_chat_completion_answers_with_the_tools_result(server: Server) -> None:
    body = {
        "messages": [{"role": "user", "content": question("note.txt")}],
        "tools": [{"type": "mcp", "server_label": "files"}],
        "tool_choice": "required",
    }
    message = post(server, "/v1/chat/completions", body)["choices"][0]["message"]
    assert message["mcp_calls"][0]["output"] == TEXT
    assert TEXT in message["content"]


def test_the_mcp_server_ends_with_the_gateway(tmp_path: Path, starter_model: Path, folder: Path) -> None:
    home = tmp_path / "home"
    put_starter(home, starter_model)
    command, *args = filesystem(folder)
    (home / "mcp.json").write_text(json.dumps({"mcpServers": {"files": {"command": command, "args": args}}}))
    with serving(home) as running:
        httpx.post(f"{running.url}/api/v1/mcp/servers/files/test", timeout=SECONDS).raise_for_status()
        programs = [each for each in running.tree() if str(folder) in " ".join(each.cmdline())]
        assert programs
        assert running.stop() == 0
        assert not [each for each in programs if each.is_running()]
