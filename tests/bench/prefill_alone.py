"""`python -m tests.bench.prefill_alone`: what prompts cost the engine, beside a bare loop over llama_decode.

First the seconds of one call by its number of rows, in the bare loop. Then prompts alone, in turns, without server or
client: the engine's time to the first token, and the bare loop's for the same prompt in calls of several sizes.
"""

import argparse
from typing import Any

from tests.bench.bare_loop import KEY_TYPES, BareProcess
from tests.bench.bench_models import STARTER, add_load_option, add_model_option
from tests.bench.engine_alone import EngineAlone, run_alone
from tests.bench.percentiles import median, ratio
from tests.bench.words import Words

SLOTS = 8
WHOLE = 0  # rows: as many as a call may have, which llama.cpp computes in parts of 512


def print_curve(bare: BareProcess, options: Any) -> None:
    print(f"one call after {options.depth} tokens: rows, seconds, tokens/s")
    for rows in options.rows:
        seconds = bare.call(rows, options.depth, options.rounds)
        print(f"  {rows:>5} {seconds:>9.3f} {rows / seconds:>9.1f}", flush=True)


async def measure(options: Any) -> None:
    bare = BareProcess(options.model, SLOTS, options.key_type)
    print_curve(bare, options)
    if options.prompts:
        engine = EngineAlone(options.model, SLOTS, options.load)
        await engine.load()
        for length in options.prompts:
            await compare(engine, bare, length, options)
        await engine.close()
    bare.close()


async def compare(engine: EngineAlone, bare: BareProcess, length: int, options: Any) -> None:
    ours: list[float] = []
    theirs: dict[int, list[float]] = {rows: [] for rows in options.slices}
    for number in range(options.rounds):
        prompt = (await engine.tokens(Words("prefill", length, number).draw(length)))[:length]
        ours.append(await engine.prefill([prompt]))
        for rows, took in theirs.items():
            took.append(bare.prefill(prompt, rows or None))
    print(f"a prompt of {length} tokens: engine {shown(ours, length)}")
    for rows, took in theirs.items():
        over = median([ratio(*each) for each in zip(ours, took, strict=True)])
        name = f"calls of {rows} rows" if rows else "whole calls"
        print(f"  {name:<18} {shown(took, length)}, engine over it {over:.2f}", flush=True)


def shown(took: list[float], tokens: int) -> str:
    return f"{median(took):.2f} s, {tokens / median(took):.1f} tokens/s"


def numbers(value: str) -> list[int]:
    return [int(number) for number in value.split(",") if number.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.prefill_alone", description=__doc__)
    add_model_option(parser, STARTER)
    rows = ",".join(str(2**power) for power in range(10))
    parser.add_argument("--rows", type=numbers, default=numbers(rows), help=f"of single calls: {rows}")
    parser.add_argument("--depth", type=int, default=0, help="tokens in the cache before each single call")
    parser.add_argument("--prompts", type=numbers, default=[650], help="lengths in tokens: 650; empty: none")
    parser.add_argument("--slices", type=numbers, default=[WHOLE], help="rows of the bare loop's calls; 0: whole")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--key-type", choices=KEY_TYPES, default="f16", help="of the bare loop's cache")
    add_load_option(parser)
    options = parser.parse_args()
    run_alone(measure(options))


if __name__ == "__main__":
    main()
