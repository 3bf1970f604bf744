"""Measured costs of computation, with a simulated clock."""

from contextlib import AbstractContextManager

import pytest

from atelier.errors import DecodeFailed
from worker.engine.model import decode_costs as module
from worker.engine.model.decode_costs import ANSWER_TOKENS, FIRST_TOKEN_SECONDS, WEIGHT, Average, Costs, Speed


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


def test_an_unmeasured_step_size_costs_as_much_as_the_nearest_smaller_one(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    for tokens, seconds in ((2, 0.02), (4, 0.03), (8, 0.05)):
        with costs.call(tokens, 0):
            clock.now += seconds
    known = [costs.decode_seconds(tokens) for tokens in (1, 2, 3, 7, 8, 100)]
    assert known == pytest.approx([0.02, 0.02, 0.02, 0.03, 0.05, 0.05])


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


def test_the_cost_of_prompts_in_mixed_steps_excludes_the_streams_share(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    with costs.call(4, 0):
        clock.now += 0.02
    with costs.call(4, 20):
        clock.now += 0.12
    assert (costs.token_seconds, costs.decode_seconds(4)) == (pytest.approx(0.005), pytest.approx(0.02))


def test_all_tokens_cost_the_same_before_a_step_is_measured(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    with costs.call(5, 20):
        clock.now += 0.1
    assert (costs.token_seconds, costs.decode_seconds(5)) == (pytest.approx(0.004), pytest.approx(0.02))


def test_a_call_faster_than_the_streams_alone_is_not_used_for_the_prompt_cost(clock: Clock) -> None:
    costs = Costs(copy_seconds=1.0)
    with costs.call(4, 0):
        clock.now += 0.02
    with costs.call(4, 20):
        clock.now += 0.01
    assert costs.token_seconds == FIRST_TOKEN_SECONDS
