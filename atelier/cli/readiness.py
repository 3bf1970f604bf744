"""When the server answers, and what it then says of itself."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from urllib.request import ProxyHandler, Request, build_opener

from atelier.cli.server_address import local_url
from atelier.config import Config

POLL_SECONDS = 0.05
PROBE_SECONDS = 2.0


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Returns when the check succeeds."""
    while True:
        if await check():
            return
        await asyncio.sleep(POLL_SECONDS)


class GatewayProbe:
    """Asks the gateway, as a client on this machine.

    With the standard library's client: another one takes longer to import than the services to start.
    """

    def __init__(self, config: Config) -> None:
        self._url = local_url(config.host, config.port)
        key = config.api_key.get_secret_value() if config.api_key else None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._open = build_opener(ProxyHandler({})).open

    async def is_ready(self) -> bool:
        """Whether it serves; it does not before it has heard from the registry."""
        return await self._get("/readyz") is not None

    async def model_keys(self) -> list[str]:
        """The models' keys; none when the gateway does not say."""
        reply = await self._get("/api/v1/models")
        return [model["key"] for model in json.loads(reply)["models"]] if reply else []

    async def _get(self, path: str) -> bytes | None:
        """The body of a successful answer; None for any other, and for none."""
        return await asyncio.to_thread(self._fetch, path)

    def _fetch(self, path: str) -> bytes | None:
        try:
            with self._open(Request(self._url + path, headers=self._headers), timeout=PROBE_SECONDS) as answer:
                return bytes(answer.read())
        except (OSError, HTTPException):
            return None
