"""The outcome of a turn: figures, or why there are none."""

from dataclasses import dataclass, field

OK = "ok"


class NoFigures(Exception):
    """A turn without figures. The class says what the table shows, the message why."""

    status = "failed"


class Interrupted(NoFigures):
    status = "interrupts"


class NotOffered(NoFigures):
    status = "n/a"


@dataclass(frozen=True, slots=True)
class Result:
    """What a workload measured."""

    figures: dict[str, float]
    tokens: int = 0  # of completions, which the CPU time is divided by


@dataclass(frozen=True, slots=True)
class Turn:
    """One server with one model at one scenario in one round."""

    model: str
    scenario: str
    server: str
    round: int
    status: str
    note: str = ""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    idle_cpu_seconds: float = 0.0  # used meanwhile by the servers whose turn it was not
