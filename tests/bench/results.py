"""The results as files: JSON, the table as text, and the plots."""

import dataclasses
import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.comparison import Row
from tests.bench.outcomes import Turn
from tests.bench.peer_environment import PYTHON, ROOT

PLOT_SECONDS = 120
JSON_NAME, TABLE_NAME = "results.json", "table.txt"


def write(directory: Path, facts: dict[str, Any], turns: Sequence[Turn], rows: Sequence[Row], table: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    data = {**facts, "turns": [*map(dataclasses.asdict, turns)], "table": [*map(dataclasses.asdict, rows)]}
    (directory / JSON_NAME).write_text(json.dumps(without_nan(data), indent=1) + "\n")
    (directory / TABLE_NAME).write_text(table + "\n")


def without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for what is not known."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def plot(directory: Path) -> None:
    """Drawn by the peers' environment, which has the library for it."""
    command = [str(PYTHON), "-m", "tests.bench.plots", str(directory.absolute())]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PLOT_SECONDS)
