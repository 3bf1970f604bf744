"""`python -m tests.bench`: this server and its peers side by side, on the same model and the same requests.

The servers are started once and take turns; a server whose turn it is not is idle, which is checked.
LLAMA_SERVER=/path/to/llama-server adds a native build of llama.cpp.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import results
from tests.bench.comparison import compare, with_speedups
from tests.bench.machine import description, physical_cores
from tests.bench.outcomes import Turn
from tests.bench.peer_environment import REQUIREMENTS, ensure_peer_environment
from tests.bench.progress import Progress
from tests.bench.roster import NATIVE_VARIABLE, OURS, Native, default_servers, idle_shares, participants, warm_up
from tests.bench.scenarios import SCENARIOS
from tests.bench.servers.contender import Settings
from tests.bench.table import notes, table
from tests.bench.turns import Participant, Place, order, take_turn
from tests.support.models.starter_model import starter_file


def main() -> None:
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    ensure_peer_environment()
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        settings = Settings(starter_file(), Path(directory), physical_cores())
        with participants(options.servers, settings) as started:
            idle, turns = asyncio.run(measure(options, started))
    report(options, settings, idle, with_speedups(turns))


def read_options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--servers", type=names, default=default_servers(), help="by commas: %(default)s")
    parser.add_argument("--scenarios", type=names, default=list(SCENARIOS), help="by commas: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="where results and plots go")
    options = parser.parse_args()
    if wrong := [name for name in options.servers if name not in {*default_servers(), Native.name}]:
        parser.error(f"no such server: {', '.join(wrong)}")
    if Native.name in options.servers and NATIVE_VARIABLE not in os.environ:
        parser.error(f"{Native.name} needs its path in {NATIVE_VARIABLE}")
    if wrong := [name for name in options.scenarios if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(wrong)}")
    if options.rounds < 1:
        parser.error("at least one round")
    return options


def names(value: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


async def measure(options: Any, started: dict[str, Participant]) -> tuple[dict[str, float], list[Turn]]:
    await warm_up(started)
    idle = await idle_shares(started)
    places = list(order(options.rounds, map(SCENARIOS.__getitem__, options.scenarios), options.servers))
    progress = Progress(places)
    progress.begin()
    return idle, [await take(place, started, progress) for place in places]


async def take(place: Place, started: dict[str, Participant], progress: Progress) -> Turn:
    turn = await take_turn(place, started)
    progress.done(place, turn)
    return turn


def report(options: Any, settings: Settings, idle: dict[str, float], turns: list[Turn]) -> None:
    rows = compare(turns, options.servers, OURS)
    titles = {name: scenario.title for name, scenario in SCENARIOS.items()}
    text = "\n".join(
        [
            table(rows, titles, options.servers, OURS),
            "",
            "Medians of rounds. Ratio: ours over theirs, of the same round.",
            "Idle, % of a core: " + ", ".join(f"{name} {share:.1%}" for name, share in idle.items()),
            *disturbance(turns),
            notes(turns),
        ]
    )
    results.write(options.out, facts(options, settings, idle), turns, rows, text)
    results.plot(options.out)
    print(f"\n{text}\nWritten to {options.out}/")


def disturbance(turns: list[Turn]) -> list[str]:
    """A warning when servers took processor time in others' turns."""
    share = sum(turn.idle_cpu_seconds for turn in turns) / max(sum(turn.seconds for turn in turns), 1e-9)
    return [f"WARNING: servers whose turn it was not took {share:.1%} of a core"] if share > 0.02 else []


def facts(options: Any, settings: Settings, idle: dict[str, float]) -> dict[str, Any]:
    return {
        "machine": description(),
        "model": settings.model.name,
        "threads": settings.threads,
        "slots": settings.slots,
        "context": settings.context,
        "rounds": options.rounds,
        "servers": options.servers,
        "peers": [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line],
        "idle_share_of_a_core": idle,
    }


if __name__ == "__main__":
    main()
