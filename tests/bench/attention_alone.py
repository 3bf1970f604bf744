"""`python -m tests.bench.attention_alone`: calls without flash attention beside the same calls with it.

In a bare loop over llama_decode, in turns: decode steps of several streams, and slices of a prompt, by the tokens that
are before them.
"""

import argparse
from typing import Any

from tests.bench.bare_loop import BareProcess
from tests.bench.bench_models import STARTER, add_model_option
from tests.bench.percentiles import median, ratio
from tests.bench.prefill_alone import numbers

STREAMS = 8
CALLS = ((1, 1), (4, 1), (8, 1), (1, 16), (1, 64))  # streams, and rows of each
ORDERS = (("on", "off"), ("off", "on"))


def measure(options: Any) -> None:
    ways = {flash: BareProcess(options.model, STREAMS, flash=flash) for flash in ("on", "off")}
    print("tokens before | streams x rows | ms with flash attention | without | ratio")
    for depth in options.depths:
        for streams, rows in CALLS:
            took: dict[str, list[float]] = {flash: [] for flash in ways}
            for number in range(options.rounds):
                for flash in ORDERS[number % 2]:
                    took[flash].append(ways[flash].call(rows, depth, 1, streams))
            over = median([ratio(*pair) for pair in zip(took["off"], took["on"], strict=True)])
            shown = " | ".join(f"{1000 * median(took[flash]):8.1f}" for flash in ways)
            print(f"{depth:5} | {streams} x {rows:2} | {shown} | {over:.2f}", flush=True)
    for way in ways.values():
        way.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attention_alone", description=__doc__)
    add_model_option(parser, STARTER)
    depths = "64,192,448,1024,2048"
    parser.add_argument("--depths", type=numbers, default=numbers(depths), help=f"tokens before: {depths}")
    parser.add_argument("--rounds", type=int, default=5)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
