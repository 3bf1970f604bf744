"""How long to wait before a crashed worker is launched again, and when to give up: pure."""

from dataclasses import dataclass

from atelier.backoff import backoff_delay

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 30.0  # seconds
HEALTHY_SECONDS = 60.0  # of being ready, after which earlier crashes are forgotten


@dataclass(frozen=True, slots=True)
class Crashes:
    """The crashes in a row, and how many of them are borne."""

    limit: int
    in_a_row: int = 0

    def another(self, ready_seconds: float) -> "Crashes":
        """After one more crash, of a worker that had been ready for so long."""
        before = 0 if ready_seconds >= HEALTHY_SECONDS else self.in_a_row
        return Crashes(self.limit, before + 1)

    @property
    def too_many(self) -> bool:
        return self.in_a_row > self.limit

    @property
    def delay(self) -> float:
        """Seconds to wait before the next launch."""
        return backoff_delay(self.in_a_row, FIRST_DELAY, LONGEST_DELAY)
