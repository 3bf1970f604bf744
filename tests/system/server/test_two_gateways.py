"""Two gateways with one registry and real workers."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from atelier.config import Config
from tests.support.command.server_process import KEY, serving
from tests.support.gateway.gateway_server import running_gateway

pytestmark = pytest.mark.system

SECONDS = 120.0
TOKEN = "a long random text"
BODY = {"model": KEY, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


@dataclass(frozen=True)
class Registry:
    """The registry of a running server."""

    target: str


async def test_twenty_requests_through_two_gateways_cause_one_load_and_get_twenty_answers(
    home: Path,
) -> None:
    with serving(home, variables={"ATELIER_REGISTRY_TOKEN": TOKEN}) as server:
        async with (
            running_gateway(Registry(Config(home=home).registry_target), registry_token=TOKEN) as second,
            httpx.AsyncClient(timeout=SECONDS) as http,
        ):
            urls = [f"{url}/v1/chat/completions" for url in (server.url, second.url)] * 10
            replies = await asyncio.gather(*(http.post(url, json=BODY) for url in urls))
        assert [reply.status_code for reply in replies] == [200] * 20
        assert all(reply.json()["usage"]["completion_tokens"] for reply in replies)
        (instance,) = server.instances()
        assert (instance["id"], instance["restarts"]) == (KEY, 0)
