"""Repetitions are found as a plain search finds them."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.speculation.repetition_index import LONGEST, MOST_COMPARED, SHORTEST, RepetitionIndex

texts = st.lists(st.integers(0, 3), max_size=60)


def indexed(tokens: list[int]) -> RepetitionIndex:
    index = RepetitionIndex()
    index.extend(tokens)
    return index


def longest_match(text: list[int], tail: list[int]) -> int:
    """Tokens of the longest match among the newest occurrences of the tail's pair that have a follower."""
    ends = [end for end in range(SHORTEST, len(text)) if text[end - 2 : end] == tail[-2:]][-MOST_COMPARED:]
    lengths = [
        next((n for n in range(min(end, len(tail), LONGEST), 0, -1) if text[end - n : end] == tail[-n:]), 0)
        for end in ends
    ]
    return max(lengths, default=0)


@given(texts)
def test_the_longest_match_of_a_texts_end_is_found(text: list[int]) -> None:
    found = indexed(text).find(text[-LONGEST:], 4)
    expected = longest_match(text, text[-LONGEST:]) if len(text) >= SHORTEST else 0
    assert (found.length if found else 0) == expected


@given(texts, texts)
def test_followers_follow_the_same_tokens(text: list[int], tail: list[int]) -> None:
    found = indexed(text).find(tail[-LONGEST:], 3)
    if found is None:
        assert len(tail) < SHORTEST or not longest_match(text, tail[-LONGEST:])
        return
    ends = [
        end
        for end in range(len(text))
        if end >= found.length and text[end - found.length : end] == tail[-found.length :]
    ]
    assert any(text[end : end + 3] == found.followers[: len(text) - end] for end in ends)
    assert len(found.followers) == 3


@given(texts, st.integers(0, 60))
def test_a_text_may_grow_in_parts(text: list[int], cut: int) -> None:
    index = indexed(text[:cut])
    index.extend(text[cut:])
    assert index.find(text[-LONGEST:], 5) == indexed(text).find(text[-LONGEST:], 5)
    assert len(index) == len(text)
    assert index.tail(5) == text[-5:]


def test_a_text_that_repeats_itself_is_expected_to_continue_so() -> None:
    found = indexed([9, 8, 1, 2, 3, 1, 2, 3, 1]).find([3, 1], 8)
    assert found is not None
    assert found.followers == [2, 3, 1, 2, 3, 1, 2, 3]


def test_of_equal_matches_the_newest_is_followed() -> None:
    found = indexed([1, 2, 7, 5, 1, 2, 8, 5, 1, 2]).find([5, 1, 2], 1)
    assert found is not None
    assert found.followers == [8]


def test_a_longer_match_is_preferred_to_a_newer_one() -> None:
    found = indexed([4, 1, 2, 7, 5, 1, 2, 8, 4, 1, 2]).find([4, 1, 2], 1)
    assert found is not None
    assert (found.length, found.followers) == (3, [7])
