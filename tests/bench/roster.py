"""The servers under comparison, started once and kept: a server whose turn it is not is idle."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.client import user
from tests.bench.process_tree import cpu_seconds
from tests.bench.servers.contender import Contender, Settings
from tests.bench.servers.kinds import LlamaCppPython, Native, Xllamacpp
from tests.bench.servers.ours import Ours
from tests.bench.servers.peer import Peer
from tests.bench.turns import Participant
from tests.bench.words import Words

OURS = Ours.name
CACHING = {Native.name, Xllamacpp.name}  # peers that keep prompts beside their slots
NATIVE_VARIABLE = "LLAMA_SERVER"
IDLE_LOOK_SECONDS = 3.0


def default_servers() -> list[str]:
    """The nearest peers first: where memory is too small for all, the last ones are left out."""
    native = [Native.name] if NATIVE_VARIABLE in os.environ else []
    return [OURS, *native, Xllamacpp.name, LlamaCppPython.name]


def contender(name: str, settings: Settings) -> Contender:
    if name == OURS:
        return Ours(settings)
    if name == Xllamacpp.name:
        return Peer(Xllamacpp(), settings)
    if name == LlamaCppPython.name:
        return Peer(LlamaCppPython(), settings)
    return Peer(Native(Path(os.environ[NATIVE_VARIABLE])), settings)


@contextmanager
def participants(names: list[str], settings: Settings) -> Iterator[dict[str, Participant]]:
    with ExitStack() as stack:
        started = {}
        for name in names:
            print(f"Starting {name} ...", flush=True)
            each = contender(name, settings)
            started[name] = Participant(each, stack.enter_context(each.started()))
        yield started


async def warm_up(started: dict[str, Participant]) -> None:
    for name, participant in started.items():
        words = Words("warm up", name)
        await participant.running.client().chat([user(words.draw(40))], words, 16)


async def idle_shares(started: dict[str, Participant]) -> dict[str, float]:
    """The share of a core that each server uses when idle."""
    before = {name: cpu_seconds(participant.running.pid) for name, participant in started.items()}
    await asyncio.sleep(IDLE_LOOK_SECONDS)
    after = {name: cpu_seconds(participant.running.pid) for name, participant in started.items()}
    return {name: (after[name] - before[name]) / IDLE_LOOK_SECONDS for name in started}
