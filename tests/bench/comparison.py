"""Turns into one table: medians over rounds, ratios within them. Pure."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.bench.outcomes import OK, Turn
from tests.bench.percentiles import known, median, ratio

BASE = "streams-1"
SPEED = "tokens_per_second"


@dataclass(frozen=True, slots=True)
class Cell:
    """What the table shows of one server: a figure, or a status where there is none."""

    value: float = math.nan
    ratio: float = math.nan  # ours over it; NaN for ours
    status: str = OK


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    scenario: str
    figure: str
    cells: dict[str, Cell]


def with_speedups(turns: Iterable[Turn]) -> list[Turn]:
    """`streams-N` gets its speed over the same server's `streams-1` of the same model and round."""
    turns = list(turns)
    base = {(t.model, t.server, t.round): t.figures[SPEED] for t in turns if t.scenario == BASE and SPEED in t.figures}
    return [_with_speedup(turn, base.get((turn.model, turn.server, turn.round))) for turn in turns]


def _with_speedup(turn: Turn, base: float | None) -> Turn:
    if base is None or not turn.scenario.startswith("streams-") or turn.scenario == BASE or SPEED not in turn.figures:
        return turn
    return dataclasses.replace(turn, figures={**turn.figures, "over_streams_1": ratio(turn.figures[SPEED], base)})


def compare(turns: Sequence[Turn], servers: Sequence[str], ours: str) -> list[Row]:
    """A row for every figure that any server has, in the order in which they were measured."""
    rows = []
    for model, scenario in dict.fromkeys((turn.model, turn.scenario) for turn in turns):
        among = [turn for turn in turns if (turn.model, turn.scenario) == (model, scenario)]
        figures = dict.fromkeys(name for turn in among for name in turn.figures) or {"": None}
        rows += [Row(model, scenario, name, {s: _cell(among, s, ours, name) for s in servers}) for name in figures]
    return rows


def _cell(turns: Sequence[Turn], server: str, ours: str, figure: str) -> Cell:
    theirs = _by_round(turns, server, figure)
    if not theirs:
        return Cell(status=_status(turns, server))
    mine = {} if server == ours else _by_round(turns, ours, figure)
    ratios = [ratio(mine[number], theirs[number]) for number in theirs if number in mine]
    return Cell(median(list(theirs.values())), median(known(ratios)))


def _by_round(turns: Sequence[Turn], server: str, figure: str) -> dict[int, float]:
    return {t.round: t.figures[figure] for t in turns if t.server == server and figure in t.figures}


def _status(turns: Sequence[Turn], server: str) -> str:
    """Why there is no figure: the last failure's word; none where only this figure is missing."""
    failures = [turn.status for turn in turns if turn.server == server and turn.status != OK]
    return failures[-1] if failures else "-"
