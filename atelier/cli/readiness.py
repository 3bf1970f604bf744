"""When the server is ready, and what `serve` prints then."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from urllib.request import ProxyHandler, Request, build_opener

import typer

from atelier.config import Config
from atelier.hosts import WILDCARDS

POLL_SECONDS = 0.05
PROBE_SECONDS = 2.0
SLOW_START = 15.0  # seconds after which `serve` says that it is still starting

EXAMPLE = """\
curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'"""


async def announce_when_ready(config: Config) -> None:
    """Wait until the server is ready, then print its address and its models."""
    waiting = asyncio.create_task(_say_if_slow(config))
    probe = GatewayProbe(config)
    try:
        await until(probe.is_ready)
        typer.echo(announcement(config, await probe.model_keys()))
    finally:
        waiting.cancel()


def announcement(config: Config, models: list[str]) -> str:
    """The address, the home, the models, and a first request."""
    url = local_url(config.host, config.port)
    lines = [f"Ready at {url}", f"  home    {config.home}", f"  models  {', '.join(models) or 'none yet'}"]
    if not models:
        return "\n".join([*lines, "Add a model with: atelier get USER/REPO, or: atelier import FILE.gguf"])
    key = ' -H "Authorization: Bearer $ATELIER_API_KEY"' if config.api_key else ""
    return "\n".join([*lines, "Try:", EXAMPLE.format(url=url, key=key, model=models[0])])


async def _say_if_slow(config: Config) -> None:
    await asyncio.sleep(SLOW_START)
    typer.echo(f"Still starting. The logs are in {config.logs_dir}", err=True)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Return once the check succeeds."""
    while True:
        if await check():
            return
        await asyncio.sleep(POLL_SECONDS)


def local_url(host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens on `host`."""
    reached = WILDCARDS.get(host, host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"


class GatewayProbe:
    """A client of the gateway on this machine.

    It uses the standard library's client: any other takes longer to import than the services take to start.
    """

    def __init__(self, config: Config) -> None:
        self._url = local_url(config.host, config.port)
        key = config.api_key.get_secret_value() if config.api_key else None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._open = build_opener(ProxyHandler({})).open

    async def is_ready(self) -> bool:
        """Whether the gateway accepts requests, which it does once it has received the registry's snapshot."""
        return await self._get("/readyz") is not None

    async def model_keys(self) -> list[str]:
        """The keys of the models; empty if the gateway does not answer."""
        reply = await self._get("/api/v1/models")
        return [model["key"] for model in json.loads(reply)["models"]] if reply else []

    async def _get(self, path: str) -> bytes | None:
        """The body of a successful reply; None on any error."""
        return await asyncio.to_thread(self._fetch, path)

    def _fetch(self, path: str) -> bytes | None:
        try:
            with self._open(Request(self._url + path, headers=self._headers), timeout=PROBE_SECONDS) as reply:
                return bytes(reply.read())
        except (OSError, HTTPException):
            return None
