"""`python -m gateway` as a process: how it refuses to start, and how it ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil

from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, events_of, post_bytes, until
from tests.support.gateway.scripted_turns import call, follow

ODD = str(Path(__file__).parents[2] / "support" / "mcp" / "odd_mcp_server.py")
START_SECONDS = 60.0
STREAM = {"model": KEY, "messages": [{"role": "user", "content": "x"}], "stream": True}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def gateway_process(*arguments: str, **settings: object) -> AsyncIterator[Process]:
    environment = {f"ATELIER_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def wait_ready(port: int) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(trust_env=False, verify=False) as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                    return
            await asyncio.sleep(0.05)


async def said_at_refusal(**settings: object) -> str:
    async with gateway_process(**settings) as process:
        out, err = await asyncio.wait_for(process.communicate(), START_SECONDS)
    assert process.returncode == 1
    assert out == b""
    return err.decode()


async def test_a_port_in_use_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await said_at_refusal(port=port)
    assert said.startswith(f"gateway: Port {port} is in use")
    assert said.count("\n") == 1


async def test_an_invalid_setting_is_one_line_that_names_its_variable() -> None:
    said = await said_at_refusal(port="many")
    assert said.startswith("gateway: ATELIER_PORT: ")
    assert said.count("\n") == 1


async def test_listening_publicly_without_a_key_is_refused_with_instructions() -> None:
    said = await said_at_refusal(host="0.0.0.0", port=0)
    assert "ATELIER_API_KEY" in said
    assert "ATELIER_ALLOW_OPEN" in said
    assert said.count("\n") == 1


async def test_sigterm_lets_streams_finish_and_exits_0(registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    port = free_port()
    async with gateway_process(port=port, registry_address=registry.target) as process:
        await wait_ready(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post_bytes("/v1/chat/completions", STREAM))
        await until(lambda: registry.workers[KEY].engine.figures().queued == 1)
        process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(trust_env=False) as http:
            while (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code != 503:
                pass
        registry.workers[KEY].engine.release()  # type: ignore[attr-defined]
        text = (await asyncio.wait_for(reader.read(), PATIENCE)).decode()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        writer.close()
    assert "[DONE]" in text


async def test_sigterm_during_a_tools_call_is_an_error_and_leaves_no_program(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    servers = {"odd": {"command": sys.executable, "args": ["-S", "-E", ODD, "children", str(notes)]}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
    registry.models[KEY] = model_message(made_for_tools=True)
    await follow(registry, {"text": "", "tool_calls": [call("hang")]})
    port = free_port()
    settings = {"port": port, "registry_address": registry.target, "shutdown_grace": 0.5, "home": tmp_path}
    async with gateway_process(**settings) as process:
        await wait_ready(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        tools = [{"type": "mcp", "server_label": "odd"}]
        writer.write(post_bytes("/v1/chat/completions", {**STREAM, "tools": tools}))
        with contextlib.closing(writer):
            begun = await asyncio.wait_for(reader.readuntil(b"mcp_calls"), START_SECONDS)  # of the program, too
            process.send_signal(signal.SIGTERM)
            text = (begun + await asyncio.wait_for(reader.read(), PATIENCE)).decode()
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    assert events_of(text)[-1]["error"]["code"] == "draining"
    started = [int(line.split()[1]) for line in notes.read_text().splitlines()]
    assert len(started) == 2
    assert not any(map(psutil.pid_exists, started))


async def test_when_its_parent_dies_it_ends_streams_with_an_error_and_exits_0(registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    port = free_port()
    settings = {"port": port, "registry_address": registry.target, "shutdown_grace": 0.1}
    async with gateway_process("--exit-with-parent", **settings) as process:
        await wait_ready(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post_bytes("/v1/chat/completions", STREAM))
        await until(lambda: registry.workers[KEY].engine.figures().queued == 1)
        assert process.stdin
        process.stdin.close()
        text = (await asyncio.wait_for(reader.read(), PATIENCE)).decode()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        writer.close()
    assert events_of(text)[-1]["error"]["code"] == "draining"
    assert "[DONE]" not in text
