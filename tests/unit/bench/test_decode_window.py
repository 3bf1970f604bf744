"""Which tokens count as decoded: those between the last sequence's first token and the first sequence's last."""

import pytest

from tests.bench import decode_window
from tests.bench.decode_window import Window


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(decode_window.time, "monotonic", lambda: now[0])
    return now


def test_tokens_decoded_while_another_sequence_is_in_prefill_do_not_count(clock: list[float]) -> None:
    window = Window(2)
    window.note(0, 1)
    clock[0] = 5.0
    window.note(0, 7)
    window.note(1, 1)
    clock[0] = 7.0
    window.note(0, 2)
    window.note(1, 2)
    window.end()
    assert window.tokens_per_second == 2.0


def test_nothing_counts_after_the_first_end(clock: list[float]) -> None:
    window = Window(1)
    window.note(0, 1)
    clock[0] = 1.0
    window.note(0, 3)
    window.end()
    clock[0] = 9.0
    window.note(0, 5)
    window.end()
    assert window.tokens_per_second == 3.0
