"""`python -m tests.bench`: this server and its peers side by side, on the same models and the same requests.

With each model the servers are started once and take turns; a server whose turn it is not is idle, which is checked.
LLAMA_SERVER=/path/to/llama-server adds a native build of llama.cpp.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.bench import results
from tests.bench.bench_models import STARTER, UnknownModel, check_name, known_names, model_file, short_name
from tests.bench.comparison import compare, with_speedups
from tests.bench.machine import description
from tests.bench.model_run import Choice, ModelRun, NoRoom, plan
from tests.bench.outcomes import Turn
from tests.bench.peer_environment import REQUIREMENTS, ensure_peer_environment
from tests.bench.progress import Progress
from tests.bench.roster import NATIVE_VARIABLE, OURS, Native, default_servers, idle_shares, participants, warm_up
from tests.bench.scenarios import STARTER_BYTES, scale_of, scenarios_at
from tests.bench.table import notes, table
from tests.bench.turns import Participant, take_turn

MODELS = (STARTER, "1.7b")
SCENARIOS = tuple(scenarios_at(scale_of(STARTER_BYTES)))
Shares = dict[str, float]  # of a core that each server takes while it is idle


def main() -> None:
    options = read_options(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    ensure_peer_environment()
    runs = planned(options)
    progress = Progress([place for run in runs for place in run.places(options.rounds)])
    progress.begin()
    idle: dict[str, Shares] = {}
    turns: list[Turn] = []
    for run in runs:
        idle[run.name], taken = measured(run, options.rounds, progress)
        turns += taken
        report(options, runs, idle, with_speedups(turns))  # after each model, so that an interruption loses only one


def read_options(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--models", type=names, default=list(MODELS), help=f"by commas: {known_names()}; by default {','.join(MODELS)}"
    )
    parser.add_argument("--servers", type=names, help=f"by commas: {', '.join(default_servers())}; as many as fit")
    parser.add_argument("--scenarios", type=names, help=f"by commas: {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="where results and plots go")
    options = parser.parse_args(arguments)
    try:
        options.models = [check_name(name) for name in options.models]
    except UnknownModel as error:
        parser.error(str(error))
    if wrong := [name for name in options.servers or () if name not in {*default_servers(), Native.name}]:
        parser.error(f"no such server: {', '.join(wrong)}")
    if Native.name in (options.servers or ()) and NATIVE_VARIABLE not in os.environ:
        parser.error(f"{Native.name} needs its path in {NATIVE_VARIABLE}")
    if wrong := [name for name in options.scenarios or () if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(wrong)}")
    if options.rounds < 1:
        parser.error("at least one round")
    return options


def names(value: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


def planned(options: Any) -> list[ModelRun]:
    """A run for each model, whose file is written if it has to be."""
    choice, available = Choice(options.servers, options.scenarios), psutil.virtual_memory().available
    try:
        runs = [
            plan(short_name(name), model_file(name), choice, default_servers(), available) for name in options.models
        ]
    except (NoRoom, UnknownModel) as error:
        sys.exit(str(error))
    for run in runs:
        if run.left_out:
            print(f"Memory is too small with {run.name} for {', '.join(run.left_out)}, too: not measured.", flush=True)
    return runs


def measured(run: ModelRun, rounds: int, progress: Progress) -> tuple[Shares, list[Turn]]:
    with (
        tempfile.TemporaryDirectory(prefix="bench") as directory,
        participants(run.servers, run.in_directory(Path(directory))) as started,
    ):
        return asyncio.run(take_turns(run, rounds, started, progress))


async def take_turns(
    run: ModelRun, rounds: int, started: dict[str, Participant], progress: Progress
) -> tuple[Shares, list[Turn]]:
    await warm_up(started)
    idle, turns = await idle_shares(started), []
    for place in run.places(rounds):
        turns.append(await take_turn(place, started))
        progress.done(place, turns[-1])
    return idle, turns


def report(options: Any, runs: list[ModelRun], idle: dict[str, Shares], turns: list[Turn]) -> None:
    servers = [name for name in options.servers or default_servers() if any(name in run.servers for run in runs)]
    rows = compare(turns, servers, OURS)
    titles = {(run.name, scenario.name): scenario.title for run in runs for scenario in run.scenarios}
    text = "\n".join(
        [
            table(rows, titles, servers, OURS),
            "",
            "Medians of rounds. Ratio: ours over theirs, of the same round.",
            *(f"Idle with {model}, % of a core: {shown(shares)}" for model, shares in idle.items()),
            *disturbance(turns),
            notes(turns),
        ]
    )
    results.write(options.out, facts(options, runs, servers, idle), turns, rows, text)
    results.plot(options.out)
    print(f"\n{text}\nWritten to {options.out}/", flush=True)


def shown(shares: Shares) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def disturbance(turns: list[Turn]) -> list[str]:
    """A warning when servers took processor time in others' turns."""
    share = sum(turn.idle_cpu_seconds for turn in turns) / max(sum(turn.seconds for turn in turns), 1e-9)
    return [f"WARNING: servers whose turn it was not took {share:.1%} of a core"] if share > 0.02 else []


def facts(options: Any, runs: list[ModelRun], servers: list[str], idle: dict[str, Shares]) -> dict[str, Any]:
    return {
        "machine": description(),
        "models": {run.name: model_facts(run) for run in runs},
        "rounds": options.rounds,
        "servers": servers,
        "peers": [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line],
        "idle_share_of_a_core": idle,
    }


def model_facts(run: ModelRun) -> dict[str, Any]:
    return {
        "file": run.settings.model.name,
        "bytes": run.settings.model.stat().st_size,
        "threads": run.settings.threads,
        "slots": run.settings.slots,
        "context": run.settings.context,
        "prompt_cache_mib": run.settings.prompt_cache_mib,
        "servers": run.servers,
        "without_room": run.left_out,
    }


if __name__ == "__main__":
    main()
