"""This project's server under check: loads with given settings, and what a load takes of the GPUs."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.bench.client import Client, user
from tests.bench.servers.contender import unchanged
from tests.bench.servers.model_copy import copy_of
from tests.bench.words import Words
from tests.gpu_check.gpu_memory import Driver, taken
from tests.gpu_check.verdicts import Loaded
from tests.support.command.server_process import Server, serving

FREED_SECONDS = 20.0  # for the driver to report an ended process's memory as free
LOAD_SECONDS = 120.0
POLL_SECONDS = 0.1
SETTLED = 8 * 2**20  # bytes that two readings may differ by


@contextmanager
def server_with(model: Path, home: Path, variables: Mapping[str, str] = MappingProxyType({})) -> Iterator[Server]:
    """A server whose only model is this file. `variables`: of its environment."""
    copy_of(model, home / "models" / "check" / "subject" / model.name)
    # A spare worker gets its variables after it has started, where /proc does not show them.
    with serving(home, variables={"ATELIER_SPARE_WORKER": "false", **variables}) as server:
        yield server


class SubjectServer:
    """Loads, measures and unloads, one instance at a time."""

    def __init__(self, server: Server, driver: Driver) -> None:
        self._server = server
        self._driver = driver
        models = httpx.get(f"{server.url}/v1/models", timeout=10).raise_for_status().json()["data"]
        self.model = str(models[0]["id"])

    @asynccontextmanager
    async def loaded(self, **settings: Any) -> AsyncIterator[Loaded]:
        """The model with these load settings; unloaded afterwards, with its memory free again."""
        before = self._driver.read()
        await asyncio.to_thread(self._post, "/api/v1/models/load", {"model": self.model, **settings})
        (instance,) = self._server.instances()
        after = self._driver.read()
        pid = int(instance["pid"])
        tree = {process.pid for process in self._server.tree()}
        yield Loaded(
            pid=pid,
            visible=_variable(pid, "CUDA_VISIBLE_DEVICES"),
            reported_layers=int(instance["gpu_layers"]),
            grown=taken(before, after),
            used_by=[number for number, gpu in enumerate(after) if pid in gpu.processes],
            lists_processes=any(tree & gpu.processes.keys() for gpu in after) or not any(g.processes for g in after),
        )
        await asyncio.to_thread(self._post, "/api/v1/models/unload", {"instance_id": instance["id"]})
        await self._freed([gpu.used for gpu in before])

    async def tokens_per_second(self, streams: int, tokens: int) -> float:
        return await tokens_per_second(self._client(), streams, tokens)

    async def texts(self, prompts: Sequence[str], tokens: int, *, at_once: bool) -> list[str]:
        """Completions at temperature 0."""
        client = self._client()

        async def ask(prompt: str) -> str:
            trace = await client.chat([user(prompt)], Words(prompt), tokens, temperature=0, repeat_penalty=1.0)
            return trace.text

        if at_once:
            return list(await asyncio.gather(*map(ask, prompts)))
        return [await ask(prompt) for prompt in prompts]

    def _client(self) -> Client:
        port = urlsplit(self._server.url).port
        assert port is not None
        return Client(port, self.model, unchanged)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        httpx.post(f"{self._server.url}{path}", json=body, timeout=LOAD_SECONDS).raise_for_status()

    async def _freed(self, before: Sequence[int]) -> None:
        deadline = time.monotonic() + FREED_SECONDS
        while any(gpu.used > was + SETTLED for gpu, was in zip(self._driver.read(), before, strict=True)):
            if time.monotonic() > deadline:
                return  # the next load is measured against what is used then
            await asyncio.sleep(POLL_SECONDS)


async def tokens_per_second(client: Client, streams: int, tokens: int) -> float:
    """Of so many streams at once, from the first request to the last token; each has a prompt of its own."""
    seeds = [Words("gpu", streams, number) for number in range(streams)]
    started = time.monotonic()
    traces = await asyncio.gather(
        *(client.chat([user(f"Tell a story about {words.draw(60)}")], words, tokens) for words in seeds)
    )
    return sum(trace.tokens for trace in traces) / (time.monotonic() - started)


def _variable(pid: int, name: str) -> str:
    """A variable of the process's environment; empty if it has none."""
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(f"{name}=".encode()):
            return entry.partition(b"=")[2].decode()
    return ""
