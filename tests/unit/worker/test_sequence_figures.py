"""How far every sequence is, as a batcher tells it."""

import time

from tests.support.batching import Batching
from worker.engine.interface import SequenceFigures, SequenceState

SHORT = tuple(range(20, 40))
LONG = tuple(20 + at * 7 % 200 for at in range(900))


def told(batching: Batching) -> list[SequenceFigures]:
    return batching.batcher.figures(time.monotonic())


def test_every_sequence_tells_how_far_it_is() -> None:
    batching = Batching(2)
    stream = batching.submit(SHORT, max_tokens=200, priority=-3)
    while stream.counts[0] < 2:
        batching.step()
    batching.submit(LONG)
    batching.submit(SHORT, priority=4)
    batching.step()
    decode, prefill, waiting = told(batching)
    assert (decode.state, decode.priority, decode.predicted_tokens) == (
        SequenceState.DECODE,
        -3,
        stream.counts[0],
    )
    assert (decode.prompt_tokens, decode.done_tokens, decode.cached_tokens) == (20, 20, 0)
    assert (prefill.state, prefill.prompt_tokens, prefill.predicted_tokens) == (SequenceState.PREFILL, 900, 0)
    assert 0 < prefill.done_tokens < 900
    assert (waiting.state, waiting.priority, waiting.done_tokens) == (SequenceState.WAITING, 4, 0)
    assert decode.age_seconds > prefill.age_seconds > waiting.age_seconds > 0


def test_tokens_from_the_cache_count_as_done() -> None:
    batching = Batching(1, exact=True)
    batching.run(LONG)
    batching.submit(LONG + LONG)
    batching.step()
    (figures,) = told(batching)
    assert 0 < figures.cached_tokens < figures.done_tokens < figures.prompt_tokens


def test_the_choices_of_a_call_are_told_apart() -> None:
    batching = Batching(4)
    batching.submit(SHORT, choices=3, max_tokens=200)
    batching.step()
    assert [figures.choice for figures in told(batching)] == [0, 1, 2]


def test_nothing_in_work_is_nothing_to_tell() -> None:
    batching = Batching(2)
    batching.run(SHORT)
    assert told(batching) == []
