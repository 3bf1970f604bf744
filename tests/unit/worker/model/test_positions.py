"""Positions of tokens after images, which take fewer positions than cells."""

import numpy as np
import pytest

from atelier.errors import DecodeFailed
from worker.engine.model.positions import Positions

TEXT = [0, 1, 2, 9, 10, 15, 16, 30]  # tokens that are no image's, or an image's first


@pytest.fixture
def positions() -> Positions:
    """Slot 0 holds an image of 6 cells in 3 columns at token 3, and one of 4 cells in one row at token 11."""
    positions = Positions()
    positions.add(0, 3, 6, 3)
    positions.add(0, 11, 4, 4)
    positions.add(0, 16, 10, 5)
    return positions


def placed(positions: Positions, slot: int = 0) -> list[int]:
    return [token - positions.saved(slot, token) for token in TEXT]


def test_text_continues_after_the_longer_side_of_each_preceding_image(positions: Positions) -> None:
    assert placed(positions) == [0, 1, 2, 6, 7, 12, 13, 22]
    assert placed(positions, 1) == TEXT


def test_a_position_inside_an_image_is_rejected(positions: Positions) -> None:
    assert positions.saved(0, 3) == 0
    for token in (4, 8, 17, 25):
        with pytest.raises(DecodeFailed, match=str(token)):
            positions.saved(0, token)


def test_cutting_tokens_removes_their_images(positions: Positions) -> None:
    positions.cut(0, 16)
    assert placed(positions) == [0, 1, 2, 6, 7, 12, 13, 27]
    positions.cut(0, 3)
    assert placed(positions) == TEXT


def test_a_copy_replaces_the_previous_content(positions: Positions) -> None:
    positions.add(1, 0, 9, 3)
    positions.copy(0, 1)
    assert placed(positions, 1) == placed(positions)
    positions.cut(0, 0)
    assert placed(positions, 1) != TEXT
    positions.copy(0, 1)
    assert placed(positions, 1) == TEXT


def test_images_are_saved_and_restored_with_a_state(positions: Positions) -> None:
    cells = np.arange(37, dtype=np.uint8)
    for slot in (0, 5):
        state = np.concatenate([cells, positions.encoded(slot)])
        assert state.size == cells.size + positions.encoded_size(slot)
        assert np.array_equal(positions.decode(2, state), cells)
        assert placed(positions, 2) == placed(positions, slot)


@pytest.mark.parametrize("end", [b"", b"\1", b"\377" * 4, b"\1\0\0\0", b"\0" * 12 + b"\2\0\0\0", b"\377" * 3 + b"\177"])
def test_a_saved_state_with_another_end_is_rejected(positions: Positions, end: bytes) -> None:
    with pytest.raises(DecodeFailed):
        positions.decode(2, np.frombuffer(end, np.uint8))
