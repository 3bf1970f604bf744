"""`python -m tests.bench.decode_alone`: the engine's decoding beside a bare loop over llama_decode and its samplers.

In turns, on the same prompts, settings and number of tokens; neither server nor gateway nor client. Counted are the
tokens after every sequence has its first.
"""

import argparse
from typing import Any

from tests.bench.bare_loop import BareProcess
from tests.bench.bench_models import STARTER, add_load_option, add_model_option
from tests.bench.engine_alone import EngineAlone, run_alone
from tests.bench.percentiles import median, ratio
from tests.bench.words import Words

WORDS = 51


async def measure(options: Any) -> None:
    engine = EngineAlone(options.model, options.streams, options.load)
    bare = BareProcess(options.model, options.streams)
    await engine.load()
    rounds = []
    for number in range(options.rounds):
        prompts = [
            await engine.tokens(f"Go on with a long story about {Words(number, each).draw(WORDS)}")
            for each in range(options.streams)
        ]
        loop = bare.decode(prompts, options.tokens)
        rounds.append((await engine.decode(prompts, options.tokens), loop))
        print(f"round {number + 1}: engine {rounds[-1][0]:.1f} tokens/s, bare loop {loop:.1f}", flush=True)
    ours, theirs = (median(column) for column in zip(*rounds, strict=True))
    print(f"{options.streams} streams, medians: engine {ours:.1f} tokens/s, bare loop {theirs:.1f}")
    print(f"median of the rounds' ratios: {median([ratio(*each) for each in rounds]):.2f}")
    bare.close()
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.decode_alone", description=__doc__)
    add_model_option(parser, STARTER)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5)
    add_load_option(parser)
    options = parser.parse_args()
    run_alone(measure(options))


if __name__ == "__main__":
    main()
