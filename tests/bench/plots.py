"""`python -m tests.bench.plots DIR`: draws DIR/results.json as SVG. Runs in .venv-bench."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from tests.bench.catalogue import FIGURES, label

PLOTTED = {
    "throughput": ("tokens_per_second", ("streams-1", "streams-4", "streams-8", "streams-16")),
    "time-to-first-token": ("ttft_median", ("streams-1", "streams-4", "streams-8", "streams-16")),
    "inter-token-latency": ("itl_p99", ("streams-1", "streams-4", "streams-8", "streams-16")),
    "prompts": ("ttft", ("prompt-650", "prompt-3600")),
    "shared-prefix-cold": ("cold_ttft_median", ("shared-prefix-400", "shared-prefix-1500")),
    "shared-prefix-warm": ("warm_ttft_median", ("shared-prefix-400", "shared-prefix-1500")),
    "newcomer": ("others_longest_gap_during", ("newcomer",)),
    "documents": ("documents_per_second", ("json-1", "json-4")),
    "cold-load": ("cold_ttft", ("cold-load",)),
    "memory": ("peak_pss", ("streams-1", "streams-8", "streams-16")),
    "cpu": ("cpu_per_1000_tokens", ("streams-1", "streams-4", "streams-8", "streams-16")),
}


def main() -> None:
    directory = Path(sys.argv[1])
    results = json.loads((directory / "results.json").read_text())
    for model in dict.fromkeys(row["model"] for row in results["table"]):
        rows = [row for row in results["table"] if row["model"] == model]
        draw_model(directory, model.replace(":", "-"), rows, results["servers"])


def draw_model(directory: Path, model: str, rows: list[dict[str, Any]], servers: list[str]) -> None:
    for name, (figure, scenarios) in PLOTTED.items():
        measured = {row["scenario"]: row["cells"] for row in rows if row["figure"] == figure}
        shown = {scenario: measured[scenario] for scenario in scenarios if scenario in measured}
        if shown:
            draw_bars(directory / f"{name}-{model}.svg", figure, shown, servers)
    draw_turns(directory / f"chat-{model}.svg", rows, servers)


def draw_bars(path: Path, figure: str, measured: dict[str, Any], servers: list[str]) -> None:
    """A group of bars for each scenario, a bar for each server; none where it has no figure."""
    drawing, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    width = 0.8 / len(servers)
    for place, server in enumerate(servers):
        values = [scaled(figure, cells[server]["value"]) for cells in measured.values()]
        bars = axes.bar([i + place * width for i in range(len(values))], values, width, label=server)
        axes.bar_label(bars, [f"{value:.3g}" if value else "-" for value in values], fontsize=7)
    axes.set_xticks([i + 0.4 - width / 2 for i in range(len(measured))], list(measured))
    axes.set_ylabel(label(figure))
    finish(drawing, axes, path)


def draw_turns(path: Path, rows: list[dict[str, Any]], servers: list[str]) -> None:
    """A chat's times to the first token, turn by turn."""
    rows = [row for row in rows if row["figure"].startswith("ttft_turn_")]
    if not rows:
        return
    drawing, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for server in servers:
        values = [row["cells"][server]["value"] for row in rows]
        if None not in values:
            axes.plot(range(1, len(rows) + 1), [value * 1000 for value in values], marker="o", label=server)
    axes.set_xlabel("turn")
    axes.set_ylabel("TTFT, ms")
    finish(drawing, axes, path)


def scaled(figure: str, value: float | None) -> float:
    return (value or 0.0) * FIGURES[figure].factor


def finish(drawing: Any, axes: Any, path: Path) -> None:
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    drawing.savefig(path)
    pyplot.close(drawing)


if __name__ == "__main__":
    main()
