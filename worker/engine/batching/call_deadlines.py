"""How long a call may take and wait: pure, from what it allows itself and where it is."""

from dataclasses import dataclass

from atelier.errors import DeadlineExceeded, QueueTimeout


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Of one call, in seconds since it was submitted; None: as long as it takes."""

    end: float | None = None
    start: float | None = None  # of the first of its sequences

    def missed(self, age: float, *, started: bool) -> DeadlineExceeded | None:
        """What a call of this age has to be told, if its time is up."""
        if self.end is not None and age >= self.end:
            where = "while it was being answered" if started else "while it waited for its turn"
            return DeadlineExceeded(f"The request's timeout passed {where}.", param="timeout")
        if self.start is not None and age >= self.start and not started:
            return QueueTimeout(f"The model had no place for the request within {self.start:g} s; try again.")
        return None


NO_DEADLINES = Deadlines()
