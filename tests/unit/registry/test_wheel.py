"""Why pip brought no wheel."""

import pytest

from registry.wheel import NotFetched

RETRYING = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/x/"
UNKNOWN = "ERROR: No matching distribution found for x"


@pytest.mark.parametrize(
    ("said", "last_word"),
    [
        (UNKNOWN, "No matching distribution found for x"),
        ("WARNING: one\n\nERROR: another\n\n[notice] A new release of pip is available", "another"),
        ("\n", "pip gave no reason."),
    ],
)
def test_pips_last_word_is_the_reason(said: str, last_word: str) -> None:
    assert str(NotFetched(said)) == last_word


@pytest.mark.parametrize(
    ("said", "unreachable"),
    [
        (f"{RETRYING}\n{UNKNOWN}", True),
        ("ERROR: Could not install: HTTPSConnectionPool(host='x', port=443): Read timed out.", True),
        (UNKNOWN, False),
        ("ERROR: No matching distribution found for connection-pool", False),
    ],
)
def test_an_index_that_does_not_answer_is_told_from_one_that_has_no_such_wheel(said: str, unreachable: bool) -> None:
    assert NotFetched(said).unreachable == unreachable
