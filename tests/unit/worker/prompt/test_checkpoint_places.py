"""Where prompts have checkpoints."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.prompt.checkpoint_places import APART, SPACING, checkpoint_places, places_after
from worker.engine.prompt.prompt_slices import BLOCKS

BORDER = 1


def words(length: int) -> list[int]:
    return [9] * length


def chat(*messages: int) -> list[int]:
    """Messages of so many tokens, each between two control tokens; then the header of the answer."""
    return [token for length in messages for token in (BORDER, *words(length), BORDER, 10)] + [BORDER, 7, 8]


def places(prompt: list[int], most: int = 4) -> list[int]:
    return checkpoint_places(prompt, BLOCKS.cut(prompt)[:-1], lambda token: token == BORDER, most)


def test_a_question_and_its_answer_start_at_places_and_so_does_the_first_question() -> None:
    prompt = chat(100, 200, 300, 400)
    starts = [103, 306, 609, 1012]
    found = places(prompt)
    assert len(found) == 4
    assert [min(start - place for place in found if place <= start) < 4 for start in starts] == [True, True, True, True]


def test_a_text_without_messages_has_places_before_its_end_and_at_growing_distances() -> None:
    found = places(words(5000))
    assert 5000 - found[-1] <= 5
    gaps = [after - before for before, after in pairwise(found)]
    assert len(found) == 4
    assert gaps == sorted(gaps, reverse=True)


def test_a_short_text_has_one_before_its_end() -> None:
    assert places(words(40)) == [36]
    assert places(words(3)) == []


def test_close_borders_have_one_place() -> None:
    assert places([BORDER, *words(20), BORDER, 10, BORDER, 7, BORDER, 10, BORDER]) == [24]


def test_cells_of_images_are_no_borders() -> None:
    asked: list[int] = []
    checkpoint_places([-5, -6, 9, 9, 9, 9, 9], [4], lambda token: bool(asked.append(token)), 4)
    assert min(asked) == 9


@given(prompt=st.lists(st.sampled_from([BORDER, 9, 9, 9, 9, -3]), max_size=3000), most=st.integers(0, 6))
def test_places_are_few_ascending_ends_of_slices_and_apart(prompt: list[int], most: int) -> None:
    ends = BLOCKS.cut(prompt)[:-1]
    found = checkpoint_places(prompt, ends, lambda token: token == BORDER, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    assert set(found) <= set(ends)
    assert most == 0 or bool(found) == bool(ends)


def test_places_leave_room_between_them() -> None:
    found = places(chat(*[2] * 400), 6)
    assert all(after - before >= SPACING for before, after in pairwise(found))


def test_a_new_text_keeps_all_its_places() -> None:
    assert places_after([24, 60, 100], 0) == [24, 60, 100]


def test_a_text_that_continues_another_has_none_that_end_a_short_call_except_the_last() -> None:
    assert places_after([24, 60, 100], 30) == [100]
    assert places_after([24, 60, 100], 95) == []
    assert places_after([24, 200, 230], 30) == [200, 230]
    assert places_after([100, 200], 200) == []


@given(steps=st.lists(st.integers(SPACING, 300), min_size=1, max_size=8), begun=st.integers(1, 2000))
def test_calls_between_places_are_long_where_a_text_continues(steps: list[int], begun: int) -> None:
    all_places = [sum(steps[: at + 1]) for at in range(len(steps))]
    kept = places_after(all_places, begun)
    assert set(kept) <= {place for place in all_places if place > begun}
    for before, after in pairwise([begun, *kept]):
        assert after - before >= (SPACING if after == all_places[-1] else APART)
