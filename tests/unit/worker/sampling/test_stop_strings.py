"""Stop strings end a text exactly, however it is split into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.sampling.stop_strings import StopScanner

letters = st.text("ab", max_size=30)


def scan(text: str, stops: list[str], cuts: list[int]) -> tuple[str, str | None]:
    scanner = StopScanner(stops)
    shown, start = "", 0
    for cut in [*sorted({min(cut, len(text)) for cut in cuts}), len(text)]:
        shown += scanner.push(text[start:cut])
        start = cut
        if scanner.found is not None:
            return shown, scanner.found
    return shown + scanner.flush(), None


@given(
    text=letters, stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), cuts=st.lists(st.integers(0, 30))
)
def test_text_before_a_stop_string_is_complete_however_it_is_split(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    shown, found = scan(text, stops, cuts)
    assert text.startswith(shown)
    assert all(stop not in shown for stop in stops)
    if found is None:
        assert shown == text
    else:
        assert text.startswith(shown + found)


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    scanner = StopScanner(["STOP"])
    assert scanner.push("go ST") == "go "
    assert scanner.push("AR") == "STAR"


def test_the_stop_string_is_not_shown() -> None:
    scanner = StopScanner(["</s>"])
    assert scanner.push("bye</s>more") == "bye"
    assert scanner.found == "</s>"


def test_the_earliest_of_several_stop_strings_wins() -> None:
    scanner = StopScanner(["world", "hello"])
    assert scanner.push("say hello world") == "say "
    assert scanner.found == "hello"


def test_an_empty_stop_string_stops_nothing() -> None:
    assert StopScanner([""]).push("text") == "text"
