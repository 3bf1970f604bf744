"""A server under comparison: how it is started, queried and made to reload its model."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from atelier.json_types import Json
from tests.bench.client import Client

START_SECONDS = 600.0  # a large model, on a machine with other work


@dataclass(frozen=True, slots=True)
class Settings:
    """The same for all."""

    model: Path  # the file; each contender copies it
    directory: Path  # for a contender's own files and logs
    threads: int
    slots: int = 8
    context: int = 4096  # tokens of each slot
    prompt_cache_mib: int | None = None  # a peer's prompts beside its slots; by default as the peer has it


def unchanged(body: Json) -> Json:
    return body


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    name: str
    pid: int
    port: int
    model: str
    adapt: Callable[[Json], Json] = unchanged

    def client(self) -> Client:
        return Client(self.port, self.model, self.adapt)


class Contender(Protocol):
    name: str

    def started(self) -> AbstractContextManager[Running]:
        """Its process, answering; nothing of it is left afterwards."""

    def embedding(self, running: Running) -> AbstractContextManager[Running]:
        """A server that makes embeddings: the running one, or a second that is started for it."""

    async def load_cold(self, running: Running, ask: "Ask") -> float:
        """Seconds to the first token of what `ask` asks, from a model that is not loaded."""


Ask = Callable[[Client], Any]  # an awaitable of a Trace
