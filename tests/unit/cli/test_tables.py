import pytest

from atelier.cli.output import Column, listing

COLUMNS = (Column("ID"), Column("STATE"), Column("PID", right=True))
ROWS = [["lab/model-one", "ready", "7"], ["lab/two", "loading 5%", "1234"]]


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    assert listing(COLUMNS, ROWS, 80).splitlines() == [
        "ID             STATE        PID",
        "lab/model-one  ready          7",
        "lab/two        loading 5%  1234",
    ]


def test_a_table_that_barely_fits_has_narrower_gaps() -> None:
    assert listing(COLUMNS, ROWS, 29).splitlines()[1] == "lab/model-one ready         7"


def test_rows_that_do_not_fit_become_paragraphs() -> None:
    assert listing(COLUMNS, ROWS, 28).splitlines() == [
        "lab/model-one",
        "  state ready · pid 7",
        "lab/two",
        "  state loading 5%",
        "  pid 1234",
    ]


def test_a_pipe_gets_whole_lines() -> None:
    wide = [["x" * 300, "ready", "1"]]
    assert listing(COLUMNS, wide, None).splitlines()[1].startswith("x" * 300 + "  ready")


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert all(len(line) <= width for line in listing(COLUMNS, ROWS, width).splitlines())
