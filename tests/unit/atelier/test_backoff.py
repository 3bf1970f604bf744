"""Delays after failures in a row."""

from atelier.backoff import backoff_delay


def test_the_delay_doubles_up_to_the_maximum() -> None:
    assert [backoff_delay(failures, 0.1, 1.0) for failures in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_there_is_no_delay_without_a_failure() -> None:
    assert [backoff_delay(failures, 1.0, 60.0) for failures in (-1, 0)] == [0.0, 0.0]


def test_any_number_of_failures_has_a_delay() -> None:
    assert backoff_delay(100_000, 0.1, 30.0) == 30.0
