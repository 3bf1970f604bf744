"""Why pip did not download a wheel."""

import pytest

from registry.wheel import NotFetched

RETRYING = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/x/"
UNKNOWN = "ERROR: No matching distribution found for x"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (UNKNOWN, "No matching distribution found for x"),
        ("WARNING: one\n\nERROR: another\n\n[notice] A new release of pip is available", "another"),
        ("\n", "pip gave no reason."),
    ],
)
def test_the_last_line_of_pip_is_the_reason(output: str, reason: str) -> None:
    assert str(NotFetched(output)) == reason


@pytest.mark.parametrize(
    ("output", "unreachable"),
    [
        (f"{RETRYING}\n{UNKNOWN}", True),
        ("ERROR: Could not install: HTTPSConnectionPool(host='x', port=443): Read timed out.", True),
        (UNKNOWN, False),
        ("ERROR: No matching distribution found for connection-pool", False),
    ],
)
def test_an_unreachable_index_is_distinguished_from_a_missing_wheel(output: str, unreachable: bool) -> None:
    assert NotFetched(output).unreachable == unreachable
