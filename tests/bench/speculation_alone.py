"""`python -m tests.bench.speculation_alone`: tokens/s with the load setting `speculation: auto` over those without.

Two engines take turns, without server and client, at three kinds of text: one that nothing predicts, one that copies a
part of its prompt, and one that was written before for the same client.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.bench.bare_loop import SAMPLING
from tests.bench.bench_models import STARTER, add_load_option, add_model_option
from tests.bench.engine_alone import EngineAlone, run_alone
from tests.bench.percentiles import median, ratio
from tests.bench.prefill_alone import numbers
from tests.bench.words import Words

GREEDY = replace(SAMPLING, temperature=0.0, repeat_penalty=1.0)
WORDS = 51
LINES = 12


def unpredicted(words: Words) -> str:
    return f"Go on with a long story about {words.draw(WORDS)}"


def copied(words: Words) -> str:
    lines = "\n".join(f"{line}. {words.draw(5)}" for line in range(1, LINES + 1))
    return f"A list:\n{lines}\n\nThe same list once more:\n1."


KINDS: dict[str, Callable[[Words], str]] = {
    "unpredicted": unpredicted,
    "copied": copied,
    "written before": unpredicted,
}


async def measure(options: Any) -> None:
    engines = [
        EngineAlone(options.model, max(options.streams), {**options.load, "speculation": speculation})
        for speculation in ("auto", "off")
    ]
    for engine in engines:
        await engine.load()
    for streams in options.streams:
        for kind in KINDS:
            rounds = [
                await one_round(engines, kind, number, streams, options.tokens) for number in range(options.rounds)
            ]
            auto, off = (median(column) for column in zip(*rounds, strict=True))
            share = median([ratio(*each) for each in rounds])
            print(f"{streams} streams, {kind}: {auto:.1f} tokens/s, {off:.1f} without, {share:.2f}", flush=True)
    for engine in engines:
        await engine.close()


async def one_round(engines: list[EngineAlone], kind: str, number: int, streams: int, tokens: int) -> tuple[float, ...]:
    sampling = SAMPLING if kind == "unpredicted" else GREEDY
    texts = [KINDS[kind](Words(kind, streams, number, stream)) for stream in range(streams)]
    speeds = {}
    for at in (number % 2, 1 - number % 2):
        prompts = [await engines[at].tokens(text) for text in texts]
        if kind == "written before":
            await engines[at].decode(prompts, tokens, sampling)
        speeds[at] = await engines[at].decode(prompts, tokens, sampling)
    return speeds[0], speeds[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.speculation_alone", description=__doc__)
    add_model_option(parser, STARTER)
    parser.add_argument("--streams", type=numbers, default=[1, 4, 8], help="by commas")
    parser.add_argument("--tokens", type=int, default=128, help="of each stream")
    parser.add_argument("--rounds", type=int, default=5)
    add_load_option(parser)
    run_alone(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
