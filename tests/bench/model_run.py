"""One model's part of a measurement: its file, the servers that have room, and the turns that they take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.machine import physical_cores
from tests.bench.memory_limits import fitting, prompt_cache_limit, server_bytes
from tests.bench.roster import CACHING
from tests.bench.scenarios import LARGE_BYTES, Scenario, scale_of, scenarios_at
from tests.bench.servers.contender import Settings
from tests.bench.turns import Place, order

GIB = 2**30


class NoRoom(Exception):
    """The servers do not fit into memory together."""


@dataclass(frozen=True, slots=True)
class ModelRun:
    name: str
    settings: Settings
    servers: list[str]
    left_out: list[str]  # servers without room
    scenarios: list[Scenario]

    def places(self, rounds: int) -> list[Place]:
        return list(order(self.name, rounds, self.scenarios, self.servers))

    def in_directory(self, directory: Path) -> Settings:
        return replace(self.settings, directory=directory)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for on the command line; None where nothing was."""

    servers: Sequence[str] | None
    scenarios: Sequence[str] | None


def plan(name: str, file: Path, choice: Choice, default_servers: Sequence[str], available: int) -> ModelRun:
    """`available`: bytes of memory. Raises NoRoom if the servers that were named do not fit.

    Without names: as many servers as fit, and every scenario, except that peers do not load a large model twice.
    """
    listed = scenarios_at(scale_of(file.stat().st_size))
    is_large = file.stat().st_size >= LARGE_BYTES
    names = choice.scenarios or [each.name for each in listed.values() if not (each.loads_again and is_large)]
    scenarios = [listed[each] for each in names]
    settings = Settings(file, Path(), physical_cores())
    wanted = choice.servers or default_servers
    needs = {server: server_bytes(settings, server) for server in wanted}
    again = max(needs.values()) if any(scenario.loads_again for scenario in scenarios) else 0
    servers = fitting(wanted, needs, available - again)
    left_out = [server for server in wanted if server not in servers]
    if left_out and (choice.servers or not servers):
        total = sum(needs.values()) + again
        raise NoRoom(
            f"{', '.join(wanted)} need {total / GIB:.1f} GiB together with {name}, and {available / GIB:.1f} are free: "
            "choose fewer with --servers"
        )
    left = available - again - sum(needs[server] for server in servers)
    limit = prompt_cache_limit(left, len(set(servers) & CACHING))
    return ModelRun(name, replace(settings, prompt_cache_mib=limit), servers, left_out, scenarios)
