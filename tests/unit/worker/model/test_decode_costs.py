"""Measured costs of computation, with a simulated clock."""

from contextlib import AbstractContextManager

import pytest

from atelier.errors import DecodeFailed
from worker.engine.model import decode_costs as module
from worker.engine.model.decode_costs import (
    ANSWER_TOKENS,
    FIRST_TOKEN_SECONDS,
    LEAST_ROWS,
    WEIGHT,
    WIDE_ROWS,
    Average,
    Costs,
    RowCurve,
    Speed,
)


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_an_average_is_none_before_its_first_value() -> None:
    assert Average().value is None


def test_an_average_begins_with_its_first_value_and_moves_towards_the_others() -> None:
    average = Average()
    average.add(10)
    assert average.value == 10
    average.add(20)
    assert average.value == pytest.approx(10 + WEIGHT * 10)


def test_costs_are_guessed_until_they_are_measured() -> None:
    costs = Costs(copy_seconds=1.0)
    assert (costs.token_seconds, costs.decode_seconds(8)) == (FIRST_TOKEN_SECONDS, None)


def test_a_slice_is_measured_per_token(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    with costs.call(0, 64):
        clock.now += 0.64
    assert costs.token_seconds == pytest.approx(0.01)


def test_a_decode_step_is_measured_as_a_whole(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    with costs.call(8, 0):
        clock.now += 0.05
    assert costs.decode_seconds(8) == pytest.approx(0.05)


def test_a_step_of_unmeasured_size_costs_what_lies_between_its_neighbours(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    for tokens, seconds in ((2, 0.02), (4, 0.03), (8, 0.05)):
        with costs.call(tokens, 0):
            clock.now += seconds
    known = [costs.decode_seconds(tokens) for tokens in (1, 2, 3, 6, 8)]
    assert known == pytest.approx([0.02, 0.02, 0.025, 0.04, 0.05])


def test_a_step_larger_than_any_measured_costs_more_by_what_prompts_of_its_size_do(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    for decoded, read, seconds in ((1, 0, 0.02), (0, 1, 0.01), (0, 8, 0.05)):
        with costs.call(decoded, read):
            clock.now += seconds
    assert costs.decode_seconds(8) == pytest.approx(0.02 + 0.04)


def test_calls_of_streams_and_prompts_are_not_measured(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    with costs.call(4, 20):
        clock.now += 0.12
    assert (costs.token_seconds, costs.decode_seconds(4)) == (FIRST_TOKEN_SECONDS, None)


def curve(**seconds: float) -> RowCurve:
    """Measured at these numbers of rows: `r16` for 16."""
    measured = RowCurve()
    for rows, each in seconds.items():
        measured.add(int(rows[1:]), each)
    return measured


def test_a_curve_is_linear_between_what_was_measured_and_through_zero_beyond() -> None:
    measured = curve(r1=0.1, r16=0.4, r64=1.6)
    assert [measured.seconds(rows) for rows in (1, 16, 40, 64, 128)] == pytest.approx([0.1, 0.4, 1.0, 1.6, 3.2])
    assert measured.row_seconds == pytest.approx(0.025)


def test_a_call_never_takes_longer_than_one_of_more_rows() -> None:
    assert curve(r8=0.9, r16=0.4).seconds(8) == pytest.approx(0.4)


def test_a_pause_of_the_machine_is_not_the_cost_of_a_call() -> None:
    measured = curve(r16=0.4)
    measured.add(16, 60)
    assert measured.seconds(16) == pytest.approx(0.4 + WEIGHT * 0.4)


def test_a_curve_follows_what_becomes_slower() -> None:
    measured = curve(r16=0.4)
    for _ in range(40):
        measured.add(16, 4.0)
    assert measured.seconds(16) > 3.5


def test_a_slice_has_as_many_rows_as_fit_into_its_time() -> None:
    costs = Costs(copy_seconds=1.0)
    assert costs.prompt_rows(64 * FIRST_TOKEN_SECONDS, 512) == 64
    assert costs.prompt_rows(64 * FIRST_TOKEN_SECONDS, 32) == 32
    assert costs.prompt_rows(0.0, 512) == LEAST_ROWS


def read(costs: Costs, clock: Clock, rows: int, seconds: float, depth: int) -> None:
    with costs.call(0, rows, depth):
        clock.now += seconds


def test_rows_cost_what_they_did_at_about_the_same_depth(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    for depth, seconds in ((0, 0.1), (700, 0.2), (3000, 0.4)):
        read(costs, clock, 16, seconds, depth)
    expected = {0: 0.1, 511: 0.1, 512: 0.2, 1023: 0.2, 2048: 0.4, 4095: 0.4, 10**6: 0.4}
    assert {depth: costs.prompt_seconds(16, depth) for depth in expected} == pytest.approx(expected)


def test_a_wide_slice_is_computed_where_small_ones_are_slow_deep_in_a_text(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    read(costs, clock, 16, 0.08, 0)
    read(costs, clock, 64, 0.3, 0)
    read(costs, clock, 16, 0.3, 3000)
    assert costs.prompt_rows(0.07, 512, 0) == LEAST_ROWS  # the gain is small
    assert costs.prompt_rows(0.07, 512, 3000) == WIDE_ROWS  # it is not known
    read(costs, clock, 64, 0.6, 3000)
    assert costs.prompt_rows(0.07, 512, 3000) == WIDE_ROWS
    assert costs.prompt_rows(0.07, 32, 3000) == 32
    assert costs.prompt_rows(0.4, 512, 3000) == LEAST_ROWS + 16  # a small one fits


def test_a_wide_slice_that_is_no_faster_is_tried_once(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    read(costs, clock, 16, 0.3, 3000)
    assert costs.prompt_rows(0.07, 512, 3000) == WIDE_ROWS
    read(costs, clock, 64, 1.2, 3000)
    assert costs.prompt_rows(0.07, 512, 3000) == LEAST_ROWS


def test_calls_are_measured_at_load_as_far_as_a_short_time_allows(clock: Clock) -> None:
    for per_row, wanted in ((1e-6, [1, 16, 64, 256]), (0.001, [1, 16, 64]), (0.1, [1])):
        computed: list[int] = []

        def compute(rows: int, per_row: float = per_row, computed: list[int] = computed) -> None:
            computed.append(rows)
            clock.now += rows * per_row

        Costs(copy_seconds=1.0).warm(compute, 512)
        assert computed == wanted


def test_a_failed_call_is_not_measured(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    for measuring in (costs.call(0, 1), costs.call(8, 0)):
        with pytest.raises(DecodeFailed):
            _fail(measuring, clock)
    assert (costs.token_seconds, costs.decode_seconds(8)) == (FIRST_TOKEN_SECONDS, None)


def _fail(measuring: AbstractContextManager[None], clock: Clock) -> None:
    with measuring:
        clock.now += 9
        raise DecodeFailed


def test_more_tokens_are_worth_copying_where_computing_is_cheap(clock: Clock) -> None:
    costs = Costs(copy_seconds=0.105)
    assert costs.worth_copying == 22
    with costs.call(0, 1000):
        clock.now += 1
    assert costs.worth_copying == 106


def test_a_free_copy_is_worth_a_single_token() -> None:
    assert Costs(copy_seconds=0).worth_copying == 1


def test_a_speed_is_corrected_by_what_is_measured(clock: Clock) -> None:
    speed = Speed(guess=100)
    assert speed.seconds(50) == pytest.approx(0.5)
    with speed.measure(100):
        clock.now += 2
    assert speed.seconds(100) == pytest.approx(1 + WEIGHT * 1)


def test_one_more_graph_costs_a_lone_step_for_each_token_of_an_answer(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    assert costs.split_tokens == 0
    with costs.call(1, 0):
        clock.now += 0.01
    with costs.call(0, 10):
        clock.now += 0.05
    assert costs.split_tokens == ANSWER_TOKENS * 2
