"""Start and stop of the server, and the absence of leftovers."""

import signal
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.support.command.server_process import MODEL, STOP_SECONDS, Server, put_starter, serving
from tests.support.waiting import reaches

pytestmark = pytest.mark.system

SPARE_SECONDS = 30


def say_hi(server: Server, model: str = MODEL) -> str:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    return reply.choices[0].message.content or ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process_behind(home: Path, number: signal.Signals) -> None:
    with serving(home) as server:
        assert say_hi(server)
        # serve, registry, gateway, worker, and the standby worker, which starts a while after a launch
        assert reaches(lambda: len(server.tree()) == 5, SPARE_SECONDS)
        tree = server.tree()
        server.process.send_signal(number)
        assert server.process.wait(STOP_SECONDS) == 0
        gone, alive = psutil.wait_procs(tree, timeout=10)
    assert not alive
    assert len(gone) == 5


def test_stopping_lets_a_running_stream_finish(home: Path) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 200}
    with serving(home) as server:
        say_hi(server)
        url = f"{server.url}/v1/chat/completions"
        with httpx.stream("POST", url, json={**body, "ignore_eos": True}, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert "data: [DONE]" in rest
        assert server.process.wait(STOP_SECONDS) == 0


def test_the_services_end_with_serve_even_when_it_is_killed(home: Path) -> None:
    with serving(home, "--shutdown-grace", "1") as server:
        say_hi(server)
        tree = server.tree()
        server.process.kill()
        _, alive = psutil.wait_procs(tree, timeout=30)
        assert not alive


def test_a_killed_registry_is_restarted_and_keeps_its_workers(home: Path) -> None:
    with serving(home) as server:
        say_hi(server)
        before = server.instances()[0]["pid"]
        registry = next(p for p in server.tree() if "registry" in p.cmdline())
        registry.kill()
        registry.wait(10)
        assert say_hi(server)  # the loaded model is served meanwhile
        assert server.instances()[0]["pid"] == before


def test_a_prompt_saved_on_disk_survives_a_restart_of_the_server(home: Path) -> None:
    words = " ".join(f"Item {number} is a word." for number in range(40))
    replies = []
    for _ in range(2):
        with serving(home) as server:
            server.atelier("load", MODEL, "--cache-disk", "64", "-c", "1024", "--reproducible")
            replies.append(ask(server, f"{words} What is it?"))
            assert server.stop() == 0
        (directory,) = (home / "cache").iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
    (first, _), (second, cached) = replies
    assert second == first
    assert cached > 100


def ask(server: Server, text: str) -> tuple[str, int]:
    """The answer at temperature 0, and how many tokens of the prompt were cached."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=8, temperature=0
        )
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    return reply.choices[0].message.content or "", reply.usage.prompt_tokens_details.cached_tokens or 0


def test_a_second_server_runs_concurrently(home: Path, tmp_path: Path, starter_model: Path) -> None:
    put_starter(tmp_path / "second", starter_model)
    with serving(home) as first, serving(tmp_path / "second") as second:
        assert first.url != second.url
        assert say_hi(first)
        assert say_hi(second)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def test_a_second_server_on_the_same_home_is_rejected(home: Path) -> None:
    with serving(home), pytest.raises(RuntimeError, match="did not start"), serving(home):
        pass
