import pytest

from atelier.cli.markdown import split_blocks
from atelier.cli.output import human_size, human_time, printable


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n\ntwo\n\nthree", "one\n\ntwo\n\n"),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("~~~\n```\n\nb", ""),
        ("- item\n\n  its second paragraph", ""),
    ],
)
def test_a_block_is_finished_when_no_later_text_can_change_it(text: str, finished: str) -> None:
    assert split_blocks(text) == (finished, text[len(finished) :])


def test_text_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x07\x9bc\n\té😀") == "a[2Jbc\n\té😀"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (98_765_432, "98.8 MB"), (7_500_000_000_000, "7500.0 GB")],
)
def test_sizes_are_reported_in_decimal_units(count: int, text: str) -> None:
    assert human_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h")]
)
def test_times_are_reported_in_two_units(seconds: float, text: str) -> None:
    assert human_time(seconds) == text
