"""How long a download that fails is tried again: pure."""

from dataclasses import dataclass

from atelier.backoff import backoff_delay

FIRST_DELAY = 1.0  # seconds, doubled up to the longest
LONGEST_DELAY = 60.0
MOST_IN_A_ROW = 10  # attempts without a new byte: some seven minutes


@dataclass(frozen=True, slots=True)
class Patience:
    """Of one download: its failures since the last new byte."""

    done_bytes: int = 0
    in_a_row: int = 0

    def after_failure(self, done_bytes: int) -> "Patience":
        if done_bytes > self.done_bytes:
            return Patience(done_bytes, 1)
        return Patience(self.done_bytes, self.in_a_row + 1)

    @property
    def exhausted(self) -> bool:
        return self.in_a_row > MOST_IN_A_ROW

    @property
    def delay(self) -> float:
        """Seconds until the next attempt."""
        return backoff_delay(self.in_a_row, FIRST_DELAY, LONGEST_DELAY)
