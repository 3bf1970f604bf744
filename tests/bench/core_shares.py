"""Two models running at once, on shared and on separate cores: `python -m tests.bench.core_shares`.

Shared: both are loaded with all cores given by hand. Their own: the registry divides the cores between those at work.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from atelier.hardware import available_cores
from registry.devices.pinning import format_cores
from tests.support.command.server_process import KEY, Server, put_starter, serving
from tests.support.models.starter_model import starter_file

PROMPT = "Write a long story about a lighthouse keeper and the sea."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        put_starter(home, starter_file())
        with serving(home) as server:
            measure(server, arguments.tokens, arguments.rounds)


def measure(server: Server, tokens: int, rounds: int) -> None:
    every = format_cores(available_cores())
    for name, options in {"shared": ("--cores", every), "own": ()}.items():
        for number in (1, 2):
            loaded = server.atelier("load", KEY, "--identifier", f"{name}-{number}", "--parallel", "2", *options)
            assert loaded.returncode == 0, loaded.stderr
    wanted = {
        "one model, all cores": ["shared-1"],
        "one model, its share": ["own-1"],
        "two models, shared cores": ["shared-1", "shared-2"],
        "two models, own cores": ["own-1", "own-2"],
    }
    rates: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(rounds):
        for name, instances in wanted.items():
            rates[name].append(asyncio.run(rate(server.url, instances, tokens)))
    for name, seen in rates.items():
        print(f"{name:28} {statistics.median(seen):7.1f} tokens/s  ({', '.join(f'{each:.1f}' for each in seen)})")


async def rate(url: str, instances: list[str], tokens: int) -> float:
    """Tokens per second of all together."""
    async with httpx.AsyncClient(timeout=300) as client:
        began = time.monotonic()
        made = await asyncio.gather(*(complete(client, url, instance, tokens) for instance in instances))
        return sum(made) / (time.monotonic() - began)


async def complete(client: httpx.AsyncClient, url: str, instance: str, tokens: int) -> int:
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": instance, "messages": messages, "max_tokens": tokens, "temperature": 0}
    reply = (await client.post(f"{url}/v1/chat/completions", json=body)).raise_for_status().json()
    return int(reply["usage"]["completion_tokens"])


if __name__ == "__main__":
    main()
