"""The order in which sequences start: the decision alone, and with a batcher."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.submission import MOST_PRIORITY
from tests.support.worker.batching import Batching, solo
from worker.engine.batching.fairness import LEVEL_SECONDS, Bid, levels, next_in_turn

few = settings(max_examples=60, deadline=None)
LONGEST_WAIT = 2 * MOST_PRIORITY * LEVEL_SECONDS  # behind more urgent ones, all else being equal
bids = st.builds(
    Bid, st.integers(-MOST_PRIORITY, MOST_PRIORITY), st.floats(0, 2 * LONGEST_WAIT), st.sampled_from("ABC")
)


def fresh(keys: str) -> list[Bid]:
    return [Bid(0, 0.0, key) for key in keys]


def test_sequences_start_fairly_across_keys_and_in_order_within_one() -> None:
    waiting, running, started = fresh("AABC"), list("AAB"), ""
    while waiting:
        key = waiting.pop(next_in_turn(waiting, running)).fairness_key
        running.append(key)
        started += key
    assert started == "CBAA"


@few
@given(st.text("ABCD", min_size=1, max_size=12), st.text("ABCD", max_size=12), st.floats(0, 1000))
def test_no_key_has_fewer_running_than_the_one_that_starts(waiting: str, running: str, waited: float) -> None:
    """However long some have waited: ageing does not change the order within a priority."""
    given = [Bid(0, waited / (1 + at), key) for at, key in enumerate(waiting)]
    chosen = next_in_turn(given, running)
    fewest = min(running.count(key) for key in waiting)
    assert running.count(waiting[chosen]) == fewest
    assert all(running.count(key) > fewest for key in waiting[:chosen])


def test_a_lower_priority_value_starts_first_regardless_of_order_and_fairness() -> None:
    waiting = [Bid(0, 5.0, "B"), Bid(1, 9.0, "C"), Bid(-1, 0.0, "A")]
    assert next_in_turn(waiting, ["A", "A"]) == 2


@few
@given(st.lists(bids, min_size=1, max_size=12))
def test_the_next_sequence_has_the_most_urgent_level(waiting: list[Bid]) -> None:
    level = levels(waiting)
    assert level[waiting[next_in_turn(waiting, [])].priority] == min(level.values())


def test_waiting_raises_the_priority() -> None:
    def first(waited: float) -> int:
        return next_in_turn([Bid(0, waited, "A"), Bid(-3, 0.0, "B")], ["A"])

    assert first(3 * LEVEL_SECONDS - 1) == 1
    assert first(4 * LEVEL_SECONDS) == 0


@few
@given(st.lists(bids, max_size=12), st.integers(-MOST_PRIORITY, MOST_PRIORITY))
def test_a_sequence_that_waited_long_enough_is_as_urgent_as_the_most_urgent(others: list[Bid], priority: int) -> None:
    patient = Bid(priority, LONGEST_WAIT)
    assert levels([*others, patient])[priority] == -MOST_PRIORITY


def test_a_flood_of_urgent_calls_does_not_starve_another_client() -> None:
    """A slot becomes free every second, and one client always has its most urgent calls waiting."""
    running = ["greedy"] * 4
    for second in range(int(LONGEST_WAIT)):
        now = float(second)
        flood = [Bid(-MOST_PRIORITY, now - came, "greedy") for came in range(second + 1)]
        modest = Bid(0, now, "modest")
        if next_in_turn([*flood, modest], running) == len(flood):
            break
    assert now <= MOST_PRIORITY * LEVEL_SECONDS


def prompt(kind: int, length: int) -> tuple[int, ...]:
    return tuple((kind * 31 + at * 7) % 200 + 20 for at in range(length))


def test_urgent_calls_start_before_earlier_ones() -> None:
    batching = Batching(1)
    batching.submit(prompt(1, 20), max_tokens=4)
    batching.step()
    priorities = [5, 0, -5, 0]
    calls = [batching.submit(prompt(2 + at, 20), max_tokens=1, priority=each) for at, each in enumerate(priorities)]
    order: list[int] = []
    while not batching.batcher.idle:
        batching.step()
        order += [at for at, call in enumerate(calls) if call.complete and at not in order]
    assert order == [2, 1, 3, 0]


def test_an_urgent_prompt_is_computed_before_a_longer_started_one() -> None:
    batching = Batching(2)
    patient = batching.submit(prompt(1, 1500), max_tokens=1)
    batching.step()
    urgent = batching.submit(prompt(2, 1200), max_tokens=1, priority=-1)
    while not urgent.complete:
        batching.step()
    assert not patient.complete


@few
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400), st.integers(-10, 10)), min_size=1, max_size=8))
def test_priorities_change_no_token(submitted: list[tuple[int, int, int]]) -> None:
    batching = Batching(3)
    calls = []
    for kind, length, priority in submitted:
        calls.append(batching.submit(prompt(kind, length), priority=priority))
        batching.step()
    batching.finish()
    assert all(call.tokens() == solo(call.prompt) for call in calls)
