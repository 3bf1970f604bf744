"""The suite's command line: one run, and its summary."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from tests.npm.installation import FOLDER, node, script

REVISIONS = ("2025-11-25", "2026-07-28")  # of the protocol: with a handshake and sessions; without
RESULTS = Path(__file__).parent / "results"

_PACKAGE = "@modelcontextprotocol/conformance"
_SCENARIO_MILLISECONDS = 20_000
_COLOUR = re.compile(r"\x1b\[\d+m")
_VERDICTS = {
    "expected": "Expected failures (in baseline):",
    "stale": "Stale baseline entries (now passing - remove from baseline):",
    "unexpected": "Unexpected failures (not in baseline):",
}


@dataclass(frozen=True)
class Leg:
    """The part that is tested, and the revision of the protocol."""

    mode: Literal["server", "client"]
    revision: str

    def __str__(self) -> str:
        return f"{self.mode}-{self.revision}"

    @property
    def expected_failures(self) -> Path:
        return Path(__file__).parent / f"expected-{self}.yaml"

    @property
    def results(self) -> Path:
        return RESULTS / str(self)


@dataclass(frozen=True)
class Outcome:
    """`passed` names scenarios; the other three scenarios or `scenario:check`. `log`: all of the suite's output."""

    leg: Leg
    exit_code: int
    passed: Sequence[str]
    expected: Sequence[str]
    stale: Sequence[str]
    unexpected: Sequence[str]
    log: Path

    @property
    def is_good(self) -> bool:
        return self.exit_code == 0 and not self.stale and not self.unexpected and bool(self.passed)


async def run(leg: Leg, target: Sequence[str]) -> Outcome:
    """`target`: the options that select what is tested. Runs what the revision requires."""
    shutil.rmtree(leg.results, ignore_errors=True)
    leg.results.mkdir(parents=True)
    log = leg.results / "log.txt"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*_command(leg), *target, stdout=output, stderr=output)
        exit_code = await process.wait()
    return _outcome(leg, exit_code, log)


def failed_checks(outcome: Outcome, name: str) -> Iterator[str]:
    """The faults that the suite found in a scenario."""
    scenario, _, only = name.partition(":")
    for found in outcome.leg.results.glob(f"**/{scenario.rpartition('/')[2]}-20*/checks.json"):
        yield from _failed(found, only)
    for found in outcome.leg.results.glob(f"server-{scenario}-20*/checks.json"):
        yield from _failed(found, only)


def _failed(checks: Path, only: str) -> Iterator[str]:
    for check in json.loads(checks.read_bytes()):
        if check["status"] in ("FAILURE", "WARNING") and only in ("", check["id"]):
            yield f"{check['id']}: {check.get('errorMessage') or check['description']}"


def _command(leg: Leg) -> list[str]:
    options = {
        "--requirements": leg.revision,
        "--expected-failures": str(leg.expected_failures),
        "--output-dir": str(leg.results),
        "--timeout": str(_SCENARIO_MILLISECONDS),
    }
    listed = [word for option in options.items() for word in option]
    return [node(), "--require", str(FOLDER / "loopback.cjs"), str(script(_PACKAGE)), leg.mode, *listed]


def _outcome(leg: Leg, exit_code: int, log: Path) -> Outcome:
    text = _COLOUR.sub("", log.read_text())
    verdicts = {name: _listed(text, heading) for name, heading in _VERDICTS.items()}
    failed = {name.partition(":")[0] for name in (*verdicts["expected"], *verdicts["unexpected"])}
    # Scenarios that are not required run as well, and do not count.
    required = yaml.safe_load((script(_PACKAGE).parents[1] / f"requirements/{leg.revision}.yaml").read_text())[leg.mode]
    return Outcome(leg, exit_code, [name for name in required if name not in failed], log=log, **verdicts)


def _listed(text: str, heading: str) -> list[str]:
    """The names below a heading, up to the next empty line."""
    _, _, below = text.partition(heading)
    return [line.split()[-1] for line in below.partition("\n\n")[0].splitlines() if line.strip()]
