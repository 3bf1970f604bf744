"""Two real models running at once: on separate cores, and with the text that each writes alone."""

import os
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from atelier.hardware import available_cores, physical_cores
from tests.support.command.server_process import KEY, Server
from tests.support.waiting import reaches

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(len(physical_cores(available_cores())) < 2, reason="there is one core for both"),
    pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to cores"),
]

NAMES = ("one", "two")


def story(server: Server, instance: str) -> str:
    messages = [{"role": "user", "content": "Write a long story about a lighthouse keeper and the sea."}]
    body = {"model": instance, "messages": messages, "max_tokens": 200, "temperature": 0}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120).raise_for_status().json()
    return str(reply["choices"][0]["message"]["content"])


def test_busy_models_have_separate_cores_and_write_the_same_as_alone(server: Server) -> None:
    for name in NAMES:
        assert server.atelier("load", KEY, "--identifier", name, "-c", "1024", "--parallel", "1").returncode == 0
    pids = [each["pid"] for each in server.instances()]

    def disjoint() -> bool:
        first, second = (os.sched_getaffinity(pid) for pid in pids)
        return not first & second

    def whole() -> bool:
        return os.sched_getaffinity(pids[0]) == available_cores()

    with ThreadPoolExecutor(2) as pool:
        alone = pool.submit(story, server, NAMES[0])
        assert reaches(whole)
        text = alone.result()
        together = [pool.submit(story, server, name) for name in NAMES]
        assert reaches(disjoint)
        assert [each.result() for each in together] == [text, text]
    assert len(text) > 200
