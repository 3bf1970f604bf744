"""The server and the prompts of a workload."""

from dataclasses import dataclass
from typing import Protocol

from tests.bench.client import Client
from tests.bench.outcomes import Result
from tests.bench.servers.contender import Contender, Running
from tests.bench.words import Words


@dataclass(frozen=True, slots=True)
class Subject:
    contender: Contender
    running: Running
    round: int
    scenario: str

    @property
    def client(self) -> Client:
        return self.running.client()

    def words(self, *parts: object) -> Words:
        """Those of one request: the same for every server, others in every round."""
        return Words(self.scenario, self.round, *parts)


class Workload(Protocol):
    async def run(self, subject: Subject) -> Result: ...
