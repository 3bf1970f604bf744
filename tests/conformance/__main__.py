"""`python -m tests.conformance`, which `make conformance` runs. Exit status 0: all results are as expected."""

import argparse
import asyncio
import logging
import sys
import textwrap
import time
from collections.abc import Sequence

import structlog

from tests.conformance import suite
from tests.conformance.scenario_client import courier_command
from tests.conformance.suite import REVISIONS, Leg, Outcome
from tests.npm.installation import NotInstalled, node
from tests.support.gateway.gateway_registry import fake_registry
from tests.support.gateway.gateway_server import running_gateway, short_directory

_WRAPPED = textwrap.TextWrapper(118, "  ", "    ", break_long_words=False, break_on_hyphens=False)


async def test_server(leg: Leg) -> Outcome:
    """The gateway's MCP server, over a scripted model."""
    with short_directory() as directory:
        async with fake_registry(directory) as registry, running_gateway(registry) as running:
            async with running.client() as http:
                # A preset is a prompt there, and the suite requests this one.
                preset = {"prompt": {"system_prompt": "This is a simple prompt for testing."}}
                (await http.put("/api/v1/presets/test_simple_prompt", json=preset)).raise_for_status()
            return await suite.run(leg, ["--url", f"{running.url}/mcp"])


async def test_client(leg: Leg) -> Outcome:
    """The gateway's MCP client."""
    async with courier_command() as command:
        return await suite.run(leg, ["--command", command])


async def test(leg: Leg) -> Outcome:
    started = time.monotonic()
    outcome = await (test_server(leg) if leg.mode == "server" else test_client(leg))
    _report(outcome, time.monotonic() - started)
    return outcome


def _report(outcome: Outcome, seconds: float) -> None:
    verdict = "as expected" if outcome.is_good else "NOT AS EXPECTED"
    print(f"\n{outcome.leg.mode}, {outcome.leg.revision}: {verdict} ({seconds:.0f} s; all of it: {outcome.log})")
    _list("pass", outcome.passed)
    _list("fail as expected", outcome.expected)
    _list("pass, but are listed as failing", outcome.stale)
    _list("fail", outcome.unexpected)
    for name in outcome.unexpected:
        for fault in suite.failed_checks(outcome, name):
            print(textwrap.indent(f"{name}: {fault}", "    "))


def _list(title: str, names: Sequence[str]) -> None:
    if names:
        print(_WRAPPED.fill(f"{len(names)} {title}: {', '.join(names)}"))


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--mode", choices=("server", "client"), help="only the server, or only the client")
    parser.add_argument("--revision", choices=REVISIONS, help="only this revision of the protocol")
    chosen = parser.parse_args()
    legs = [
        Leg(mode, revision)
        for mode in ("server", "client")
        for revision in REVISIONS
        if chosen.mode in (None, mode) and chosen.revision in (None, revision)
    ]
    try:
        node()
    except NotInstalled as error:
        sys.exit(str(error))
    suite.RESULTS.mkdir(exist_ok=True)
    with (suite.RESULTS / "gateway.txt").open("w") as log:
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(log))
        logging.basicConfig(stream=log)
        return await test_all(legs)


async def test_all(legs: Sequence[Leg]) -> int:
    return 0 if all([(await test(leg)).is_good for leg in legs]) else 1


sys.exit(asyncio.run(main()))
