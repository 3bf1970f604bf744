"""Connections to MCP servers that are programs, most of them misbehaving."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp_types import ElicitRequestParams, ElicitResult

from atelier.errors import MCPConnectionError
from gateway.core.mcp_server_config import Command, ServerConfig
from gateway.core.outbound import AddressGuard
from gateway.tools.mcp_client.connection_pool import ServerPool
from gateway.tools.mcp_client.mcp_limits import PoolLimits
from tests.support.gateway.gateway_server import PATIENCE, until

ODD = str(Path(__file__).parents[2] / "support" / "mcp" / "odd_mcp_server.py")


def odd(behaviour: str = "", file: Path | None = None, **more: Any) -> ServerConfig:
    args = (ODD, behaviour, *([str(file)] if file is not None else []))
    return ServerConfig("odd", Command(sys.executable, ("-S", "-E", *args)), **more)


@asynccontextmanager
async def pool_of(**limits: Any) -> AsyncIterator[ServerPool]:
    pool = ServerPool(AddressGuard(), limits=PoolLimits(**{"grace_seconds": 0.2, **limits}))
    try:
        async with asyncio.timeout(PATIENCE):
            yield pool
    finally:
        await pool.close()
        assert not [child for child in psutil.Process().children() if ODD in " ".join(child.cmdline())]


async def refused(work: Awaitable[object]) -> str:
    with pytest.raises(MCPConnectionError) as caught:
        await work
    assert caught.value.message.startswith('The MCP server "odd" ')
    return caught.value.message


def lines(file: Path, beginning: str) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.startswith(beginning)] if file.exists() else []


async def test_many_callers_share_one_connection(tmp_path: Path) -> None:
    server = odd(file=tmp_path / "notes")
    async with pool_of() as pool:
        listed, *results = await asyncio.gather(
            pool.tools(server), *(pool.call(server, "echo", {"n": n}) for n in range(20))
        )
        assert [tool.name for tool in listed] == ["echo", "crash", "hang", "work"]
        assert [json.loads(result.text)["n"] for result in results] == list(range(20))
        assert pool.state(server) == "open"
    assert len(lines(tmp_path / "notes", "start")) == 1


async def test_a_crash_in_a_call_is_reported_and_the_next_call_works(tmp_path: Path) -> None:
    server = odd(file=tmp_path / "notes")
    async with pool_of() as pool:
        for _ in range(3):
            assert "during the call" in await refused(pool.call(server, "crash", {}))
            assert (await pool.call(server, "echo", {"a": 1})).text == '{"a": 1}'


async def test_endlessly_nested_arguments_do_not_end_the_connection(tmp_path: Path) -> None:
    server = odd(file=tmp_path / "notes")
    deep: dict[str, Any] = {}
    for _ in range(600):
        deep = {"a": deep}
    async with pool_of() as pool:
        assert (await pool.call(server, "echo", deep)).is_error
        for _ in range(510):
            deep = deep["a"]
        assert json.loads((await pool.call(server, "echo", deep)).text) == deep
    assert len(lines(tmp_path / "notes", "start")) == 1


async def test_the_end_of_a_program_is_noticed_although_its_child_processes_run_on(tmp_path: Path) -> None:
    server = odd("children", tmp_path / "notes")
    async with pool_of() as pool:
        assert "during the call" in await refused(pool.call(server, "crash", {}))
        assert (await pool.call(server, "echo", {})).text == "{}"
    assert not any(map(lives, pids(tmp_path / "notes")))


async def test_a_program_that_does_not_start_is_retried_after_a_delay(tmp_path: Path) -> None:
    server = odd("crash at start", tmp_path / "notes")
    async with pool_of() as pool:
        await refused(pool.tools(server))
        await refused(pool.tools(server))  # the first failure delays nothing
        assert "tried again in" in await refused(pool.tools(server))
        assert pool.state(server) == "failed"
        assert pool.stderr_tail(server) == "no configuration"
    assert len(lines(tmp_path / "notes", "start")) == 2


async def test_a_missing_program_is_named() -> None:
    async with pool_of() as pool:
        message = await refused(pool.tools(ServerConfig("odd", Command("/nowhere/at/all"))))
        assert "could not be started" in message


@pytest.mark.parametrize(
    ("behaviour", "limits", "reason"),
    [
        ("hang in initialize", {"connect_seconds": 0.5}, "not ready within"),
        ("hang in list", {"list_seconds": 0.5}, "did not list its tools"),
        ("no list", {}, "not valid MCP"),
    ],
)
async def test_a_server_that_does_not_become_ready_is_reported(
    behaviour: str, limits: dict[str, Any], reason: str
) -> None:
    async with pool_of(**limits) as pool:
        assert reason in await refused(pool.tools(odd(behaviour)))


async def test_a_server_that_hangs_in_a_call_is_restarted(tmp_path: Path) -> None:
    server = odd(file=tmp_path / "notes", call_seconds=0.3)
    async with pool_of(probe_seconds=0.2) as pool:
        assert "within 0.3 seconds" in await refused(pool.call(server, "hang", {}))
        assert (await pool.call(server, "echo", {})).text == "{}"
    assert len(lines(tmp_path / "notes", "start")) == 2


async def test_a_call_that_times_out_does_not_end_the_connection(tmp_path: Path) -> None:
    """The server is notified, and answers other calls meanwhile."""
    server = odd(file=tmp_path / "notes", call_seconds=0.3)
    async with pool_of(probe_seconds=5) as pool:
        await refused(pool.call(server, "work", {}))
        assert (await pool.call(server, "echo", {})).text == "{}"
        await until(lambda: lines(tmp_path / "notes", "cancelled"))
    assert len(lines(tmp_path / "notes", "start")) == 1


async def test_cancelling_the_caller_cancels_the_call_at_the_server(tmp_path: Path) -> None:
    server = odd(file=tmp_path / "notes")
    async with pool_of() as pool:
        await pool.tools(server)
        waiting = asyncio.create_task(pool.call(server, "work", {}))
        assert (await pool.call(server, "echo", {})).text == "{}"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: lines(tmp_path / "notes", "cancelled"))
        assert pool.state(server) == "open"


async def test_cancelling_one_wait_for_a_connection_does_not_affect_the_others() -> None:
    server = odd()
    async with pool_of() as pool:
        first, second = (asyncio.create_task(pool.call(server, "echo", {})) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).text == "{}"


async def test_cancelling_one_wait_for_the_tools_does_not_affect_the_others(tmp_path: Path) -> None:
    """Its list may arrive while the others wait for theirs."""
    file = tmp_path / "notes"
    server = odd("late list", file)
    async with pool_of() as pool:
        first = asyncio.create_task(pool.tools(server))
        await until(lambda: lines(file, "list"))
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(pool.tools(server))
        await asyncio.sleep(0)
        (tmp_path / "notes.go").touch()
        assert [tool.name for tool in await second] == ["echo", "crash", "hang", "work"]


async def within_memory(work: Callable[[], Awaitable[object]], most: int) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    await work()
    assert process.memory_info().rss - before < most * 2**20


@pytest.mark.parametrize("behaviour", ["endless line", "huge result"])
async def test_a_line_that_is_too_long_ends_the_connection(behaviour: str) -> None:
    server = odd(behaviour)
    async with pool_of(message=2**20) as pool:
        await within_memory(lambda: refused(pool.call(server, "echo", {})), 30)


async def test_a_message_of_too_many_values_is_not_read() -> None:
    async with pool_of() as pool:
        server = odd("many values")
        await within_memory(lambda: refused(pool.call(server, "echo", {})), 30)


async def test_endless_notifications_cost_only_the_call() -> None:
    server = odd("notifications", call_seconds=1)
    async with pool_of(messages_a_second=50) as pool:
        used = time.process_time()
        await within_memory(lambda: refused(pool.call(server, "echo", {})), 30)
        assert time.process_time() - used < 0.8


async def test_requests_of_a_server_that_does_not_read_the_answers_are_limited() -> None:
    server = odd("pings", call_seconds=2)
    async with pool_of(probe_seconds=0.2) as pool:
        await within_memory(lambda: refused(pool.call(server, "echo", {})), 150)


async def test_requests_that_a_server_cancels_do_not_count() -> None:
    async def elicit(server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
        await asyncio.Event().wait()
        raise AssertionError

    pool = ServerPool(AddressGuard())
    server = odd("cancels", elicitation=True)
    async with asyncio.timeout(PATIENCE):
        assert (await pool.call(server, "echo", {}, elicit=elicit)).text == "{}"
        await pool.close()


async def test_a_program_that_does_not_read_is_restarted(tmp_path: Path) -> None:
    server = odd(file=tmp_path / "notes", call_seconds=0.3)
    async with pool_of(probe_seconds=0.2) as pool:
        await refused(pool.call(server, "hang", {}))
        calls = (pool.call(server, "hang", {"a": "b" * 1_000_000}) for _ in range(10))
        assert all(
            isinstance(error, MCPConnectionError) for error in await asyncio.gather(*calls, return_exceptions=True)
        )
        assert (await pool.call(server, "echo", {})).text == "{}"


async def test_a_failure_is_counted_once_for_all_waiting_callers(tmp_path: Path) -> None:
    server = odd("crash at start", tmp_path / "notes")
    async with pool_of() as pool:
        await asyncio.gather(*(refused(pool.tools(server)) for _ in range(10)))
        assert "tried again" not in await refused(pool.tools(server))
    assert len(lines(tmp_path / "notes", "start")) == 2


async def test_progress_is_passed_on_and_a_flood_of_it_is_dropped() -> None:
    reported: list[tuple[float, str | None]] = []
    slow = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, message))
        await slow.wait()

    async with pool_of() as pool:
        result = await pool.call(odd("progress"), "echo", {}, on_progress)
        assert result.text == "done"
        assert len(reported) == 1
        assert len(reported[0][1] or "") <= 500
        slow.set()


async def test_invalid_messages_are_skipped() -> None:
    async with pool_of() as pool:
        assert (await pool.call(odd("junk"), "echo", {})).text == "after the junk"


async def test_the_end_of_a_programs_error_output_is_kept() -> None:
    server = odd("stderr")
    async with pool_of() as pool:
        assert (await pool.call(server, "echo", {})).text == "said much"
        assert 0 < len(pool.stderr_tail(server)) <= 4096


@pytest.mark.parametrize(("behaviour", "count"), [("endless pages", 5), ("same cursor", 2), ("many tools", 100)])
async def test_an_endless_list_of_tools_is_truncated(behaviour: str, count: int) -> None:
    async with pool_of(pages=5, tools=100) as pool:
        assert len(await pool.tools(odd(behaviour))) == count


async def test_invalid_tools_are_omitted() -> None:
    async with pool_of() as pool:
        tools = {tool.name: tool for tool in await pool.tools(odd("odd tools"))}
        assert list(tools) == ["good", "also_good", "odd_output"]
        assert len(tools["good"].description) < 20_000
        assert tools["good"].annotations == {"readOnlyHint": True}
        assert tools["also_good"].parameters == {"type": "object", "properties": {"a": True}}
        assert (await pool.call(odd("odd tools"), "good", {"a": 1})).text == '{"a": 1}'


async def test_tools_are_listed_once_until_they_change() -> None:
    server = odd("changing")
    async with pool_of() as pool:
        assert [tool.name for tool in await pool.tools(server)] == ["v1", "change"]
        assert [tool.name for tool in await pool.tools(server)] == ["v1", "change"]
        await pool.call(server, "change", {})
        assert [tool.name for tool in await pool.tools(server)] == ["v2", "change"]


async def test_tools_are_listed_again_after_a_while() -> None:
    async with pool_of(refresh_seconds=0) as pool:
        assert [(await pool.tools(odd("changing")))[0].name for _ in range(2)] == ["v1", "v2"]


async def test_checking_output_against_its_schema_is_limited_in_time() -> None:
    server = odd("typed")
    async with pool_of() as pool:
        right = await pool.call(server, "right", {})
        assert (right.is_error, right.text) == (False, "7")
        wrong = await pool.call(server, "wrong", {})
        assert wrong.is_error
        assert "$.n" in wrong.text
        for name in ("slow", "web", "remote"):  # whose validity is unknown
            assert not (await pool.call(server, name, {})).is_error


async def test_a_malformed_result_is_reported() -> None:
    async with pool_of() as pool:
        assert "not valid MCP" in await refused(pool.call(odd("bad result"), "echo", {}))


async def test_a_rejected_call_is_a_tool_error() -> None:
    async with pool_of() as pool:
        result = await pool.call(odd("refuses"), "echo", {})
        assert (result.is_error, result.text) == (True, "no such tool")


async def test_a_program_does_not_inherit_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    server = odd("environment")
    assert isinstance(server.reach, Command)
    own = ServerConfig("odd", Command(server.reach.command, server.reach.args, env=(("OWN", "1"),)))
    async with pool_of() as pool:
        environment = json.loads((await pool.call(own, "echo", {})).text)
    assert environment["OWN"] == "1"
    assert environment["PATH"] == os.environ["PATH"]
    assert "secret" not in environment.values()


async def test_idle_connections_are_closed_and_reopened(tmp_path: Path) -> None:
    server = odd("children", tmp_path / "notes")
    async with pool_of(idle_seconds=0.2) as pool:
        await pool.tools(server)
        await until(lambda: pool.state(server) == "closed")
        await until(lambda: not any(map(lives, pids(tmp_path / "notes"))))
        assert (await pool.call(server, "echo", {})).text == "{}"


async def test_no_child_process_of_a_program_outlives_the_pool(tmp_path: Path) -> None:
    pool = ServerPool(AddressGuard(), limits=PoolLimits(grace_seconds=0.2))
    await pool.tools(odd("children", tmp_path / "notes"))
    await pool.tools(odd("stubborn", tmp_path / "notes"))
    found = pids(tmp_path / "notes")
    assert len(found) == 3
    await pool.close()
    assert not any(map(lives, found))
    assert "stopping" in await refused(pool.tools(odd()))


async def test_a_server_that_never_becomes_ready_does_not_delay_the_end(tmp_path: Path) -> None:
    pool = ServerPool(AddressGuard(), limits=PoolLimits(grace_seconds=0.2))
    waiting = asyncio.create_task(pool.tools(odd("hang in initialize", tmp_path / "notes")))
    await until(lambda: lines(tmp_path / "notes", "start"))
    async with asyncio.timeout(5):
        await pool.close()
    assert "closed" in await refused(waiting)
    assert not any(map(lives, pids(tmp_path / "notes")))


def pids(file: Path) -> list[int]:
    return [int(line.split()[1]) for line in file.read_text().splitlines()]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
