"""Calls past their deadlines: the pure decision, and that they end within a step in every state."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import AtelierError, DeadlineExceeded, QueueTimeout
from tests.support.worker.batching import Batching, Call, solo
from worker.engine.interface import NO_DEADLINES, Deadlines

PROMPT = tuple(range(20, 40))
LONG_PROMPT = tuple(20 + at * 7 % 200 for at in range(900))
ages = st.floats(0, 1e6)


@given(ages, st.booleans())
def test_a_call_without_limits_never_times_out(age: float, started: bool) -> None:
    assert NO_DEADLINES.missed(age, started=started) is None


@given(ages, ages, st.booleans())
def test_a_call_fails_from_its_deadline_on_and_not_before(end: float, age: float, started: bool) -> None:
    missed = Deadlines(end=end).missed(age, started=started)
    assert (missed is not None) == (age >= end)
    assert missed is None or (missed.status, missed.param) == (504, "timeout")


@given(ages, ages, st.booleans())
def test_a_queue_timeout_applies_only_while_a_call_waits(start: float, age: float, started: bool) -> None:
    missed = Deadlines(start=start).missed(age, started=started)
    assert isinstance(missed, QueueTimeout) == (age >= start and not started)


def test_a_queue_timeout_is_a_server_error_with_retry_after() -> None:
    assert (QueueTimeout.status, QueueTimeout.code, QueueTimeout.retry_after) == (503, "queue_timeout", 5)


def streaming(batching: Batching) -> Call:
    call = batching.submit(PROMPT, max_tokens=200, deadlines=Deadlines(end=100))
    while not call.counts[0]:
        batching.step()
    return call


def in_prefill(batching: Batching) -> Call:
    call = batching.submit(LONG_PROMPT, deadlines=Deadlines(end=100))
    batching.step()
    assert not call.counts[0]
    assert batching.context.calls
    return call


def waiting(batching: Batching) -> Call:
    batching.submit(PROMPT, max_tokens=200)
    call = batching.submit(LONG_PROMPT, choices=3, deadlines=Deadlines(end=100))
    batching.step()
    assert not call.ticket.started
    return call


@pytest.mark.parametrize("reach", [streaming, in_prefill, waiting])
def test_a_call_past_its_deadline_ends_within_a_step_in_every_state(reach: Callable[[Batching], Call]) -> None:
    batching = Batching(1)
    call = reach(batching)
    batching.step()
    assert call.error is None, "there is time left"
    call.ticket.submitted -= 100
    batching.step()
    error: AtelierError | None = call.error
    assert type(error) is DeadlineExceeded
    batching.finish()
    assert not call.finished
    assert batching.free_slots() == 1


def test_tokens_cached_by_a_timed_out_call_are_reused() -> None:
    batching = Batching(1, exact=True)
    call = batching.submit(LONG_PROMPT, deadlines=Deadlines(end=100))
    batching.step()
    batching.step()
    call.ticket.submitted -= 100
    batching.step()
    again = batching.submit(LONG_PROMPT)
    batching.finish()
    assert again.tokens() == solo(LONG_PROMPT, exact=True)
    assert again.finished[0].statistics.cached_tokens > 0


def test_a_queue_timeout_no_longer_applies_once_a_choice_has_started() -> None:
    batching = Batching(1)
    call = batching.submit(PROMPT, choices=2, deadlines=Deadlines(start=100))
    batching.step()
    call.ticket.submitted -= 1000  # its second choice still waits
    batching.finish()
    assert call.complete


def test_a_call_that_waits_too_long_for_a_slot_fails() -> None:
    batching = Batching(1)
    busy = batching.submit(PROMPT, max_tokens=8)
    late = batching.submit(PROMPT, deadlines=Deadlines(start=100))
    batching.step()
    late.ticket.submitted -= 100
    batching.step()
    assert isinstance(late.error, QueueTimeout)
    batching.finish()
    assert busy.tokens() == solo(PROMPT)
