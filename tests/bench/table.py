"""The comparison as text. Pure."""

import math
from collections.abc import Mapping, Sequence

from tests.bench.catalogue import label, shown
from tests.bench.comparison import Cell, Row
from tests.bench.outcomes import OK, Turn

WIDTH = 12
LABEL_WIDTH = 40


def table(rows: Sequence[Row], titles: Mapping[tuple[str, str], str], servers: Sequence[str], ours: str) -> str:
    """One line a figure; behind each other server's, ours over theirs within the same round.

    `titles`: of scenarios, by model and name.
    """
    lines = [_heading(servers, ours)]
    model = scenario = ""
    for row in rows:
        if row.model != model:
            model, scenario = row.model, ""
            lines += ["", f"Model {model}"]
        if row.scenario != scenario:
            scenario = row.scenario
            lines += ["", f"{scenario}: {titles.get((model, scenario), '')}".removesuffix(": ")]
        lines.append(_line(row, servers, ours))
    return "\n".join(lines)


def _heading(servers: Sequence[str], ours: str) -> str:
    columns = "".join(f"{name:>{WIDTH}}" + ("" if name == ours else f"{'ratio':>8}") for name in servers)
    return f"{'':{LABEL_WIDTH}}{columns}"


def _line(row: Row, servers: Sequence[str], ours: str) -> str:
    columns = "".join(_column(row.figure, row.cells[name], with_ratio=name != ours) for name in servers)
    return f"  {label(row.figure):{LABEL_WIDTH - 2}}{columns}".rstrip()


def _column(figure: str, cell: Cell, *, with_ratio: bool) -> str:
    value = shown(figure, cell.value) if cell.status == OK else cell.status
    ratio = "" if math.isnan(cell.ratio) else f"{cell.ratio:.2f}"
    return f"{value:>{WIDTH}}" + (f"{ratio:>8}" if with_ratio else "")


def notes(turns: Sequence[Turn]) -> str:
    """Why figures are missing, once for each reason."""
    missing = [turn for turn in turns if turn.status != OK]
    reasons = dict.fromkeys(f"{t.model}, {t.scenario}, {t.server}: {t.status}: {t.note}" for t in missing)
    return "\n".join(reasons)
