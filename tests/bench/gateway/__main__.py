"""`python -m tests.bench.gateway`: the gateway alone, over an engine that follows a script.

One gateway process, one worker process, and clients in processes of their own that only count. The
script makes its steps as fast as it can, or, with --step-ms, at the pace of an engine.
"""

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tests.bench.gateway.levels import FirstToken, Level, measure_first_token, measure_level
from tests.bench.machine import description

MOST_STREAM_TOKENS = 10_000
SECONDS_OF_A_LEVEL = 8  # about: starting its processes takes most of it


def main() -> None:
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes are ended
    print(f"About {SECONDS_OF_A_LEVEL * (len(options.streams) + 1)} seconds", flush=True)
    levels, first = asyncio.run(measure(options))
    write(options, levels, first)


def read_options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--streams", type=counts, default=[1, 8, 64, 256, 512], help="numbers of them, by commas")
    parser.add_argument("--tokens", type=int, default=100_000, help="of all streams together, about")
    parser.add_argument("--step-ms", type=float, default=0.0, help="pause of each step of the script")
    parser.add_argument("--requests", type=int, default=100, help="for the time to the first token")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    return parser.parse_args()


def counts(value: str) -> list[int]:
    return [int(count) for count in value.split(",")]


async def measure(options: Any) -> tuple[list[Level], FirstToken]:
    print(HEADING, flush=True)
    levels = []
    for streams in options.streams:
        tokens = max(1, min(MOST_STREAM_TOKENS, options.tokens // streams))
        level = await measure_level(streams, tokens, options.step_ms / 1000)
        print(line(level), flush=True)
        levels.append(level)
    first = await measure_first_token(options.requests)
    print(
        f"\nTTFT at 1 stream: {first.through_gateway * 1000:.2f} ms through the gateway, "
        f"{first.from_worker * 1000:.2f} ms from the worker: {first.added * 1000:.2f} ms added"
    )
    return levels, first


HEADING = (
    f"{'streams':>8}{'tokens/s':>11}{'per core':>11}{'us/token':>10}{'us/event':>10}{'tokens/event':>14}"
    f"{'gateway CPU':>13}{'worker CPU':>12}"
)


def line(level: Level) -> str:
    """`per core`: tokens for each second of the gateway's processor time. CPU: shares of a core meanwhile."""
    return (
        f"{level.streams:>8}{level.tokens_per_second:>11,.0f}{level.tokens_per_core_second:>11,.0f}"
        f"{level.microseconds_per_token:>10.1f}{level.microseconds_per_event:>10.1f}"
        f"{level.tokens / level.events:>14.2f}{level.gateway_cpu / level.seconds:>13.0%}"
        f"{level.worker_cpu / level.seconds:>12.0%}"
    )


def write(options: Any, levels: list[Level], first: FirstToken) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "machine": description(),
        "step_ms": options.step_ms,
        "levels": [dataclasses.asdict(level) for level in levels],
        "first_token": dataclasses.asdict(first),
    }
    (options.out / "gateway.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
