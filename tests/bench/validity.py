"""`python -m tests.bench.validity`: many documents under one strict JSON Schema, and how many follow it."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.bench.bench_models import STARTER, add_model_option
from tests.bench.machine import physical_cores
from tests.bench.roster import OURS, contender
from tests.bench.servers.contender import Running, Settings
from tests.bench.trace import Trace
from tests.bench.words import Words
from tests.bench.workloads.at_once import answered
from tests.bench.workloads.documents import ask_for_document, valid

TELL_EVERY = 50


async def count_valid(running: Running, documents: int, streams: int) -> int:
    done = 0
    found = 0

    async def ask(number: int) -> Trace:
        nonlocal done, found
        trace = await ask_for_document(running.client(), Words("validity", number))
        done += 1
        found += valid(trace.text)
        if done % TELL_EVERY == 0:
            print(f"{found} of {done} documents are valid", flush=True)
        return trace

    await answered(streams, documents, ask)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.validity", description=__doc__)
    add_model_option(parser, STARTER)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--streams", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        settings = Settings(options.model, Path(directory), physical_cores())
        with contender(OURS, settings).started() as running:
            found = asyncio.run(count_valid(running, options.documents, options.streams))
    print(f"{found} of {options.documents} documents are valid")
    sys.exit(0 if found == options.documents else 1)


if __name__ == "__main__":
    main()
