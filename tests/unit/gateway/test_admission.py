import asyncio

import pytest

from atelier.errors import Draining, Overloaded
from gateway.core.admission import Admission


def test_exactly_the_excess_is_refused() -> None:
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


def test_a_request_that_never_began_leaves_no_trace() -> None:
    admission = Admission(1)
    admission.enter().leave()
    assert (admission.waiting, admission.active) == (0, 0)


async def test_a_closed_one_admits_nobody_and_is_idle_when_the_last_has_left() -> None:
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
