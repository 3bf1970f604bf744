import asyncio

import pytest

from atelier.errors import Draining, Overloaded
from gateway.core.admission import Admission


def test_only_requests_over_the_limit_are_rejected() -> None:
    admission = Admission(3)
    tickets = [admission.enter() for _ in range(3)]
    with pytest.raises(Overloaded):
        admission.enter()
    tickets[0].leave()
    admission.enter()


def test_a_request_waits_until_a_worker_has_it() -> None:
    admission = Admission(3)
    ticket = admission.enter()
    assert (admission.waiting, admission.active) == (1, 0)
    ticket.begin()
    assert (admission.waiting, admission.active) == (0, 1)
    ticket.leave()
    ticket.leave()
    assert (admission.waiting, admission.active) == (0, 0)


def test_a_request_that_never_started_is_not_counted() -> None:
    admission = Admission(1)
    admission.enter().leave()
    assert (admission.waiting, admission.active) == (0, 0)


async def test_closed_admission_rejects_requests_and_is_idle_after_the_last_one_ends() -> None:
    admission = Admission(3)
    ticket = admission.enter()
    admission.close()
    with pytest.raises(Draining):
        admission.enter()
    idle = asyncio.ensure_future(admission.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    ticket.leave()
    await asyncio.wait_for(idle, 5)
