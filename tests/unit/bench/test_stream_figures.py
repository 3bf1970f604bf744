"""Figures of streams, of chats and of a newcomer, from made-up times."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.bench.catalogue import FIGURES
from tests.bench.outcomes import NoFigures
from tests.bench.stream_figures import stream_figures
from tests.bench.trace import Trace
from tests.bench.words import Words
from tests.bench.workloads import newcomer
from tests.bench.workloads.chat import turn_figures
from tests.bench.workloads.lone_prompt import prompt_figures
from tests.bench.workloads.newcomer import Arrivals, newcomer_figures, overlapping_gaps
from tests.bench.workloads.shared_prefix import prefix_figures


def trace(sent: float, *arrivals: float) -> Trace:
    return Trace(sent, arrivals, "x" * len(arrivals), len(arrivals), finish_reason="length")


def test_tokens_per_second_run_from_the_first_request_to_the_last_token() -> None:
    figures = stream_figures([trace(0.0, 1.0, 2.0), trace(1.0, 3.0, 4.0)])
    assert figures["tokens_per_second"] == 1.0


def test_gaps_are_those_within_streams() -> None:
    figures = stream_figures([trace(0.0, 1.0, 1.5), trace(0.0, 10.0, 13.0)])
    assert figures["longest_gap"] == 3.0
    assert figures["itl_median"] == 1.75
    assert figures["slowest_over_fastest"] == pytest.approx(13 / 1.5)


def test_a_chats_first_turn_is_reported_separately() -> None:
    turns = [trace(0.0, 9.0, 9.5), trace(0.0, 1.0, 1.5), trace(0.0, 3.0, 3.5)]
    turns[1:] = [replace(turn, prompt_tokens=50, cached_tokens=40) for turn in turns[1:]]
    figures = turn_figures(turns, trace(0.0, 12.0))
    assert figures["ttft_turn_1"] == 9.0
    assert figures["ttft_later_turns"] == 2.0
    assert figures["computed_later_turns"] == 10.0
    assert figures["last_turn_over_whole_history"] == 0.25


def test_a_prefixs_first_and_second_use_have_figures_of_their_own() -> None:
    figures = prefix_figures("warm", [trace(0.0, 1.0, 2.0), trace(1.0, 3.0, 4.0)])
    assert figures["warm_tokens_per_second"] == 1.0
    assert figures["warm_ttft_median"] == 1.5
    assert all(name in FIGURES for phase in ("cold", "warm") for name in prefix_figures(phase, [trace(0.0, 1.0)]))


def test_a_lone_prompts_speed_includes_all_until_its_first_token() -> None:
    figures = prompt_figures(replace(trace(1.0, 3.0), prompt_tokens=100))
    assert figures == {"ttft": 2.0, "prompt_tokens": 100.0, "prompt_tokens_per_second": 50.0}
    assert "prompt_tokens_per_second" not in prompt_figures(trace(1.0, 3.0))  # the server reports no usage


def test_a_gap_counts_in_full_when_the_newcomer_arrived_within_it() -> None:
    assert overlapping_gaps((1.0, 2.0, 5.0, 6.0, 7.0), begin=2.5, end=5.5) == [3.0, 1.0]


def test_a_newcomers_cost_is_the_longest_gap_over_the_usual_one() -> None:
    running = [1.0, 2.0, 3.0, 7.0, 8.0, 9.0]
    figures = newcomer_figures(trace(0.0, 2.0), trace(3.5, 7.5), [running], came=3.5)
    assert figures["others_longest_over_median_gap"] == 4.0
    assert figures["newcomer_slowdown"] == 2.0


def test_streams_that_ended_too_early_give_no_figures() -> None:
    with pytest.raises(NoFigures):
        newcomer_figures(trace(0.0, 2.0), trace(9.5, 10.5), [[1.0, 2.0]], came=9.5)


async def test_the_newcomer_waits_for_the_slowest_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomer, "ONE_STEP_SECONDS", -1)  # each piece counts
    running = Arrivals(2)
    settled = asyncio.create_task(running.all_have(2))
    for stream in (0, 0, 0, 1):
        running.note(stream)
        await asyncio.sleep(0)
    assert not settled.done()
    running.note(1)
    await asyncio.wait_for(settled, 5)
    later = asyncio.create_task(running.all_since(running.times[1][-1]))
    await asyncio.sleep(0)
    running.note(1)
    await asyncio.sleep(0)
    assert not later.done()
    running.note(0)
    await asyncio.wait_for(later, 5)


def test_pieces_that_come_together_are_one() -> None:
    running = Arrivals(1)
    for _ in range(20):
        running.note(0)
    assert len(running.times[0]) < 20


async def test_a_stream_that_ends_before_the_newcomers_answer_gives_no_figures() -> None:
    """Otherwise the turn would wait for its next piece until its limit."""

    class Ends:
        """A client whose requests are answered at once."""

        async def chat(self, *arguments: object) -> Trace:
            return trace(0.0, 1.0)

    subject = SimpleNamespace(client=Ends(), words=lambda *parts: Words(*parts))
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(newcomer.Newcomer(2, 8, 4, 8).run(subject), 5)
    assert raised.group_contains(NoFigures, match="ended before")
