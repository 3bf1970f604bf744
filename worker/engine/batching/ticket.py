"""What the event loop and the engine's thread share about a call: whether anyone still waits for it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from atelier.errors import DeadlineExceeded
from worker.engine.interface import NO_DEADLINES, Deadlines, Emitted, Failed, Source


@dataclass(slots=True)
class Ticket:
    """One call's, for all of its choices."""

    source: Source
    open_choices: int
    deadlines: Deadlines = NO_DEADLINES
    submitted: float = field(default_factory=time.monotonic)
    started: bool = False  # one of its choices has had a slot
    cancelled: bool = False

    def age(self, now: float) -> float:
        """Seconds since it was submitted."""
        return now - self.submitted

    def missed(self, now: float) -> DeadlineExceeded | None:
        """What a call that is out of time has to be told."""
        return self.deadlines.missed(self.age(now), started=self.started)


def cancel_overdue(tickets: Iterable[Ticket], now: float) -> list[Emitted]:
    """Cancel the calls that are out of time; what each is told, once however many choices it has."""
    told: list[Emitted] = []
    for ticket in tickets:
        if not ticket.cancelled and (error := ticket.missed(now)) is not None:
            ticket.cancelled = True
            told.append((ticket.source, Failed(error)))
    return told
