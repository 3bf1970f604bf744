"""The progress of every sequence, as a batcher reports it."""

import time

from tests.support.worker.batching import Batching
from worker.engine.interface import SequenceFigures, SequenceState

SHORT = tuple(range(20, 40))
LONG = tuple(20 + at * 7 % 200 for at in range(900))


def reported(batching: Batching) -> list[SequenceFigures]:
    return batching.batcher.figures(time.monotonic())


def test_every_sequence_reports_its_progress() -> None:
    batching = Batching(2)
    stream = batching.submit(SHORT, max_tokens=200, priority=-3)
    while stream.counts[0] < 2:
        batching.step()
    batching.submit(LONG)
    batching.submit(SHORT, priority=4)
    batching.step()
    decode, prefill, waiting = reported(batching)
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
    (figures,) = reported(batching)
    assert 0 < figures.cached_tokens < figures.done_tokens < figures.prompt_tokens


def test_the_choices_of_a_call_are_distinguished() -> None:
    batching = Batching(4)
    batching.submit(SHORT, choices=3, max_tokens=200)
    batching.step()
    assert [figures.choice for figures in reported(batching)] == [0, 1, 2]


def test_an_idle_batcher_reports_no_sequence() -> None:
    batching = Batching(2)
    batching.run(SHORT)
    assert reported(batching) == []
