"""What is being measured, and the remaining time."""

from tests.bench.catalogue import label, shown
from tests.bench.outcomes import OK, Turn
from tests.bench.turns import Place

OVERHEAD_SECONDS = 0.5  # of a turn, for the server to come to rest

NOTE_LENGTH = 80


class Progress:
    """Estimates from the scenarios' own guesses, corrected by how the turns so far compared with theirs."""

    def __init__(self, places: list[Place]) -> None:
        self._places = places
        self._done = 0
        self._measured: dict[tuple[str, str, str], float] = {}
        self._took = 0.0
        self._guessed = 0.0

    def begin(self) -> None:
        print(f"{len(self._places)} turns, about {self._left() / 60:.0f} minutes\n", flush=True)

    def done(self, place: Place, turn: Turn) -> None:
        self._done += 1
        self._took += turn.seconds + OVERHEAD_SECONDS
        self._measured[place.model, place.scenario.name, place.server] = turn.seconds + OVERHEAD_SECONDS
        self._guessed += place.scenario.seconds + OVERHEAD_SECONDS
        name = next(iter(turn.figures), None)
        said = f"{label(name)} {shown(name, turn.figures[name])}" if turn.status == OK and name else why(turn)
        print(
            f"[{self._done:>3}/{len(self._places)}] round {place.round + 1}  {place.model} {place.scenario.name:<18} "
            f"{place.server:<12} {said:<32} {turn.seconds:6.1f} s, {self._left() / 60:.0f} min left",
            flush=True,
        )

    def _left(self) -> float:
        correction = self._took / self._guessed if self._guessed else 1.0
        return sum(self._expected(place, correction) for place in self._places[self._done :])

    def _expected(self, place: Place, correction: float) -> float:
        """The time that it took last; before that, the guess."""
        known = self._measured.get((place.model, place.scenario.name, place.server))
        return known or (place.scenario.seconds + OVERHEAD_SECONDS) * correction


def why(turn: Turn) -> str:
    """The beginning of the reason; the table's notes have all of it."""
    return f"{turn.status}: {turn.note[:NOTE_LENGTH]}" if turn.note else turn.status
