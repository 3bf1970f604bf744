"""The pool of answers is bounded, and gives no client another's."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.speculation.answer_pool import AnswerPool

ANSWER = list(range(100, 120))


def followers(pool: AnswerPool, key: str, tail: list[int], most: int = 4) -> list[int]:
    found = pool.find(key, tail, most)
    return [] if found is None else found.followers


def test_an_answer_is_found_again_by_its_client() -> None:
    pool = AnswerPool()
    pool.add("a", ANSWER)
    assert followers(pool, "a", ANSWER[:3]) == ANSWER[3:7]


def test_no_client_is_given_what_another_was_answered() -> None:
    pool = AnswerPool()
    pool.add("a", ANSWER)
    assert pool.find("b", ANSWER[:3], 4) is None
    pool.add("b", [*ANSWER[:3], 7, 8, 9])
    assert followers(pool, "b", ANSWER[:3], 3) == [7, 8, 9]


def test_a_draft_ends_with_its_answer() -> None:
    pool = AnswerPool()
    pool.add("a", ANSWER)
    pool.add("a", [1, 2, 3])
    assert followers(pool, "a", ANSWER[-4:-2], 8) == ANSWER[-2:]
    assert followers(pool, "a", ANSWER[-2:], 8) == []


def test_the_oldest_answers_of_a_client_are_dropped() -> None:
    pool = AnswerPool(client_tokens=100)
    for kind in range(20):
        pool.add("a", [kind * 100 + at for at in range(20)])
    assert len(pool) <= 100
    assert followers(pool, "a", [1900, 1901]) == [1902, 1903, 1904, 1905]
    assert pool.find("a", [0, 1], 4) is None


def test_clients_that_were_not_answered_for_long_are_dropped() -> None:
    pool = AnswerPool(most_clients=2)
    for key in ("a", "b", "a", "c"):
        pool.add(key, ANSWER)
    assert pool.find("b", ANSWER[:3], 4) is None
    assert followers(pool, "a", ANSWER[:3])
    assert followers(pool, "c", ANSWER[:3])


actions = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 200)), max_size=60)


@given(actions)
def test_the_pool_never_exceeds_its_bounds(answers: list[Any]) -> None:
    pool = AnswerPool(client_tokens=64, pool_tokens=150, most_clients=4)
    for key, length in answers:
        pool.add(key, list(range(length)))
        assert len(pool) <= 150
        assert pool.clients <= 4
        assert len(pool) <= 64 * pool.clients
