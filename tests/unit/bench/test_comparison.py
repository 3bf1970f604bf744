"""From turns to the table."""

import math

from tests.bench.comparison import Row, compare, with_speedups
from tests.bench.outcomes import Turn
from tests.bench.table import notes, table

OURS, PEER = "ours", "peer"


def turn(
    server: str,
    round: int,
    speed: float | None,
    scenario: str = "streams-1",
    status: str = "ok",
    model: str = "135m",
) -> Turn:
    figures = {} if speed is None else {"tokens_per_second": speed}
    return Turn(model, scenario, server, round, status, "" if status == "ok" else "because", figures=figures)


def only_row(*turns: Turn) -> Row:
    (row,) = compare(turns, [OURS, PEER], OURS)
    return row


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    """The machine became twice as fast in the second round: the ratios do not show it, the medians do."""
    row = only_row(turn(OURS, 0, 30), turn(PEER, 0, 10), turn(OURS, 1, 60), turn(PEER, 1, 20))
    assert row.cells[OURS].value == 45
    assert row.cells[PEER].value == 15
    assert row.cells[PEER].ratio == 3


def test_a_round_that_only_one_finished_gives_no_ratio() -> None:
    row = only_row(turn(OURS, 0, 30), turn(PEER, 0, 10), turn(OURS, 1, 99), turn(PEER, 1, None, status="timeout"))
    assert row.cells[PEER].ratio == 3
    only_theirs = only_row(turn(OURS, 0, None, status="failed"), turn(PEER, 0, 10))
    assert math.isnan(only_theirs.cells[PEER].ratio)


def test_a_server_without_a_figure_is_shown_by_its_status() -> None:
    row = only_row(turn(OURS, 0, 30), turn(PEER, 0, None, status="interrupts"))
    assert row.cells[PEER].status == "interrupts"


def test_a_scenario_that_no_server_supports_keeps_a_row() -> None:
    row = only_row(turn(OURS, 0, None, status="n/a"), turn(PEER, 0, None, status="failed"))
    assert [row.cells[name].status for name in (OURS, PEER)] == ["n/a", "failed"]


def test_speed_over_one_stream_compares_the_same_server_and_round() -> None:
    turns = [turn(OURS, 0, 10), turn(OURS, 1, 20), turn(OURS, 0, 40, "streams-8"), turn(OURS, 1, 60, "streams-8")]
    assert [t.figures.get("over_streams_1") for t in with_speedups(turns)] == [None, None, 4, 3]


def test_without_one_stream_there_is_no_speed_over_it() -> None:
    assert "over_streams_1" not in with_speedups([turn(OURS, 0, 40, "streams-8")])[0].figures


def test_the_table_has_figures_ratios_and_statuses() -> None:
    turns = [
        *(turn(OURS, 0, 30), turn(PEER, 0, 10)),
        *(turn(OURS, 0, 9, "json-1"), turn(PEER, 0, None, "json-1", "n/a")),
    ]
    text = table(compare(turns, [OURS, PEER], OURS), {("135m", "json-1"): "A schema"}, [OURS, PEER], OURS)
    lines = [line.split() for line in text.splitlines()]
    assert ["tokens/s", "30.0", "10.0", "3.00"] in lines
    assert ["json-1:", "A", "schema"] in lines
    assert ["tokens/s", "9.0", "n/a"] in lines
    assert notes(turns) == "135m, json-1, peer: n/a: because"


def test_models_are_compared_apart() -> None:
    turns = [turn(OURS, 0, 30), turn(PEER, 0, 10), turn(OURS, 0, 4, model="1.7b"), turn(PEER, 0, 8, model="1.7b")]
    rows = compare(turns, [OURS, PEER], OURS)
    assert [(row.model, row.cells[PEER].ratio) for row in rows] == [("135m", 3), ("1.7b", 0.5)]
    lines = table(rows, {}, [OURS, PEER], OURS).splitlines()
    assert [line for line in lines if line.startswith("Model")] == ["Model 135m", "Model 1.7b"]


def test_speed_over_one_stream_is_that_of_the_same_model() -> None:
    turns = [turn(OURS, 0, 10), turn(OURS, 0, 2, model="1.7b"), turn(OURS, 0, 8, "streams-8", model="1.7b")]
    assert with_speedups(turns)[-1].figures["over_streams_1"] == 4
