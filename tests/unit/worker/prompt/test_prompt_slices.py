"""Where prompts are cut into slices, which depends on their tokens alone."""

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.prompt.prompt_slices import TAIL, Slicing

few = settings(max_examples=50, deadline=None)
BORDER = 0
GRID = 64
prompts = st.lists(st.sampled_from([BORDER, *range(1, 12)]), min_size=1, max_size=400)
slicings = st.integers(TAIL, 100).flatmap(
    lambda grid: st.builds(Slicing, st.just(grid), st.integers(TAIL, grid), st.just(lambda token: token == BORDER))
)
chats = Slicing(GRID, is_border=lambda token: token == BORDER)


def lengths(slicing: Slicing, prompt: list[int]) -> list[int]:
    ends = slicing.cut(prompt)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@few
@given(slicings, prompts)
def test_slices_cover_a_prompt_in_order(slicing: Slicing, prompt: list[int]) -> None:
    assert all(length > 0 for length in lengths(slicing, prompt))
    assert slicing.cut(prompt)[-1] == len(prompt)


@few
@given(slicings, prompts)
def test_every_slice_but_the_last_has_an_allowed_length(slicing: Slicing, prompt: list[int]) -> None:
    assert all(slicing.shortest <= length <= slicing.grid for length in lengths(slicing, prompt)[:-1])


@few
@given(slicings, prompts)
def test_the_last_slice_is_tiny_only_if_the_prompt_is(slicing: Slicing, prompt: list[int]) -> None:
    assert min(TAIL, len(prompt)) <= lengths(slicing, prompt)[-1] <= slicing.grid + TAIL - 1


@few
@given(slicings, prompts)
def test_a_slice_ends_before_a_border_or_at_its_greatest_length(slicing: Slicing, prompt: list[int]) -> None:
    ends = slicing.cut(prompt)
    for start, end in zip([0, *ends], ends[:-1], strict=False):
        assert prompt[end] == BORDER or end - start == slicing.grid
        assert BORDER not in prompt[start + slicing.shortest : end]


@few
@given(slicings, prompts, prompts, prompts)
def test_a_common_prefix_is_cut_alike(slicing: Slicing, common: list[int], one: list[int], other: list[int]) -> None:
    """An end depends on the tokens before it, on the one after it, and on whether a tail is left."""
    first, second = common + one, common + other
    known = min(len(common) - 1, len(first) - TAIL, len(second) - TAIL)
    assert [end for end in slicing.cut(first) if end <= known] == [end for end in slicing.cut(second) if end <= known]


def test_a_chat_is_cut_where_its_messages_end() -> None:
    system = [BORDER, *[1] * 29, BORDER]
    user = [BORDER, *[2] * 20, BORDER, BORDER, 3]
    assert chats.cut(system + user) == [30, 55]


def test_the_next_prompt_shares_the_slices_of_the_last_one() -> None:
    chat = [BORDER, *[1] * 30, BORDER, *[2] * 30, BORDER, *[3] * 20]
    longer = [*chat, BORDER, *[4] * 40]
    assert chats.cut(chat) == [31, 62, 83]
    assert chats.cut(longer) == [31, 62, 83, 124]


def test_a_long_text_is_cut_evenly() -> None:
    assert chats.cut([1] * 200) == [64, 128, 200]


def test_a_border_does_not_make_a_slice_shorter_than_the_shortest() -> None:
    borders = Slicing(GRID, shortest=40, is_border=lambda token: token == BORDER)
    assert borders.cut([*[1] * 39, BORDER, *[1] * 60]) == [64, 100]
    assert borders.cut([*[1] * 40, BORDER, *[1] * 60]) == [40, 101]


def test_a_rest_shorter_than_a_tail_joins_the_previous_slice() -> None:
    assert chats.cut([1] * (GRID + TAIL - 1)) == [GRID + TAIL - 1]
    assert chats.cut([1] * (GRID + TAIL)) == [GRID, GRID + TAIL]


def test_a_prompt_of_one_token_is_one_slice() -> None:
    assert chats.cut([BORDER]) == [1]
