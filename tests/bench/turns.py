"""Turns: every server at every scenario in every round, one after another."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.outcomes import OK, NoFigures, Result, Turn
from tests.bench.process_tree import Memory, MemoryWatch, cpu_seconds
from tests.bench.scenarios import Scenario
from tests.bench.servers.contender import Contender, Running
from tests.bench.workloads.subject import Subject

SETTLE_SECONDS = 30.0
LOOK_SECONDS = 0.2
IDLE_SHARE = 0.05  # of a core


@dataclass(slots=True)
class Participant:
    contender: Contender
    running: Running


@dataclass(frozen=True, slots=True)
class Place:
    """A turn that is to be taken."""

    model: str
    round: int
    scenario: Scenario
    server: str


def order(model: str, rounds: int, scenarios: Iterable[Scenario], servers: Sequence[str]) -> Iterator[Place]:
    """Round by round, scenario by scenario; each round begins with another server, so that none always goes first."""
    scenarios = list(scenarios)
    servers = list(servers)
    for number in range(rounds):
        first = number % len(servers)
        for scenario in scenarios:
            for server in servers[first:] + servers[:first]:
                yield Place(model, number, scenario, server)


@dataclass(slots=True)
class _Seen:
    """The results of a turn so far."""

    result: Result = field(default_factory=lambda: Result({}))
    status: str = OK
    note: str = ""


async def take_turn(place: Place, participants: dict[str, Participant]) -> Turn:
    mine = participants[place.server]
    others = [p.running.pid for name, p in participants.items() if name != place.server]
    await settled(mine.running.pid)
    mine_before, others_before, started = cpu_seconds(mine.running.pid), sum(map(cpu_seconds, others)), time.monotonic()
    with MemoryWatch(mine.running.pid) as watch:
        seen = await _run(place, mine)
        seconds = time.monotonic() - started
    cpu = cpu_seconds(mine.running.pid) - mine_before
    return Turn(
        place.model,
        place.scenario.name,
        place.server,
        place.round,
        seen.status,
        seen.note,
        seconds,
        {**seen.result.figures, **costs(seen.result, cpu, watch.most)},
        sum(map(cpu_seconds, others)) - others_before,
    )


async def _run(place: Place, participant: Participant) -> _Seen:
    subject = Subject(participant.contender, participant.running, place.round, place.scenario.name)
    try:
        async with asyncio.timeout(place.scenario.limit):
            return _Seen(await place.scenario.workload.run(subject))
    except TimeoutError:
        return _Seen(status="timeout", note=f"not done after {place.scenario.limit:.0f} s")
    except NoFigures as reason:
        return _Seen(status=reason.status, note=str(reason))
    except ExceptionGroup as group:
        return _failure(_first(group))
    except Exception as error:
        return _failure(error)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failure(error: Exception) -> _Seen:
    """A server that fails loses its own turn, and does not affect the others' figures."""
    if isinstance(error, NoFigures):
        return _Seen(status=error.status, note=str(error))
    return _Seen(status=NoFigures.status, note=f"{type(error).__name__}: {error}")


def costs(result: Result, cpu: float, memory: Memory) -> dict[str, float]:
    if not result.tokens:
        return {}
    most = {"peak_rss": memory.resident, "peak_pss": memory.proportional}
    return {**{name: size for name, size in most.items() if size}, "cpu_per_1000_tokens": cpu / result.tokens * 1000}


async def settled(pid: int) -> None:
    """Return when the server is at rest: after a turn that was given up it may still compute."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        await asyncio.sleep(LOOK_SECONDS)
        if cpu_seconds(pid) - before <= IDLE_SHARE * LOOK_SECONDS:
            return
