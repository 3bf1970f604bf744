"""How many draft tokens pay."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.speculation.draft_decision import LEAST_CHANCE, LEAST_GAIN, MOST_ROWS, choose_drafts

chances = st.lists(st.lists(st.floats(0.0, 1.0), max_size=8), max_size=8)


def times(streams: int, fixed: float, row: float) -> Callable[[Sequence[int]], float]:
    """Steps of streams: seconds that every step takes, and seconds for each of its rows."""
    return lambda drafts: fixed + row * (streams + sum(drafts))


def rate(own: Sequence[Sequence[float]], counts: Sequence[int], seconds: Callable[[Sequence[int]], float]) -> float:
    """Expected tokens a second."""
    expected = float(len(own))
    for each, count in zip(own, counts, strict=True):
        chance = 1.0
        for one in each[:count]:
            chance *= one
            expected += chance
    return expected / seconds(counts)


def test_where_rows_cost_nothing_likely_tokens_are_drafted() -> None:
    assert choose_drafts([[0.9] * 4, [], [0.9, 0.05, 0.9]], times(3, 1.0, 0.0)) == [4, 0, 1]


def test_where_a_row_costs_a_step_no_draft_pays() -> None:
    assert choose_drafts([[0.99] * 8], times(1, 0.0, 1.0)) == [0]


def test_a_token_is_drafted_where_its_chance_exceeds_its_share_of_the_step() -> None:
    def drafted(chance: float) -> int:
        return choose_drafts([[chance]], times(1, 0.7, 0.3))[0]

    assert drafted(0.4) == 1
    assert drafted(0.3) == 0  # 1.3 tokens in 1.3 times as long


def test_the_number_of_tokens_follows_the_chance_of_all_before_them() -> None:
    seconds = times(1, 0.8, 0.2)
    lengths = [choose_drafts([[chance] * 16], seconds)[0] for chance in (0.3, 0.6, 0.8, 0.95)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_beside_more_streams_fewer_tokens_are_drafted() -> None:
    """Each step has a token of every stream already, so that a row has to earn more."""
    counts = [choose_drafts([[0.5] * 4] + [[]] * others, times(others + 1, 0.6, 0.4)) for others in range(12)]
    drafted = [sum(each) for each in counts]
    assert drafted[0] > 0 == drafted[-1]


def test_another_graph_pays_only_where_several_streams_share_it() -> None:
    """A step of streams with the same number of drafts is one graph."""

    def seconds(drafts: Sequence[int]) -> float:
        return 1.0 if len(set(drafts)) == 1 else 2.0

    assert choose_drafts([[0.5], [0.5], [0.5], [0.5]], seconds) == [1, 1, 1, 1]
    assert choose_drafts([[0.5], [0.5], [0.5], []], seconds) == [0, 0, 0, 0]


def test_the_time_to_draft_counts() -> None:
    assert choose_drafts([[0.5]], times(1, 1.0, 0.0), draft_seconds=0.1) == [1]
    assert choose_drafts([[0.5]], times(1, 1.0, 0.0), draft_seconds=0.6) == [0]


def test_nothing_is_drafted_before_a_step_was_measured() -> None:
    assert choose_drafts([[0.99]], lambda drafts: None) == [0]


def test_no_sequences_need_no_drafts() -> None:
    assert choose_drafts([], times(0, 1.0, 0.0)) == []


@given(chances, st.floats(0.001, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_drafts_never_make_the_expected_pace_worse(
    own: list[list[float]], fixed: float, row: float, draft_seconds: float
) -> None:
    seconds = times(len(own), fixed, row)
    counts = choose_drafts(own, seconds, draft_seconds)
    assert all(0 <= count <= len(each) for count, each in zip(counts, own, strict=True))
    assert sum(counts) <= MOST_ROWS
    if any(counts):
        with_drafting = rate(own, counts, lambda drafts: seconds(drafts) + draft_seconds * max(drafts))
        assert with_drafting >= LEAST_GAIN * rate(own, [0] * len(own), seconds) * (1 - 1e-9)


@given(chances, st.floats(0.001, 1.0))
def test_improbable_tokens_are_never_drafted(own: list[list[float]], fixed: float) -> None:
    for each, count in zip(own, choose_drafts(own, times(len(own), fixed, 0.0)), strict=True):
        chance = 1.0
        for one in each[:count]:
            chance *= one
        assert not count or chance >= LEAST_CHANCE * (1 - 1e-9)


@pytest.mark.parametrize("streams", [1, 4, 8])
def test_unlikely_text_is_not_drafted_at_the_pace_of_a_cpu(streams: int) -> None:
    assert not any(choose_drafts([[0.25] * 8] * streams, times(streams, 0.6, 0.4)))
