"""Prompts longer than the context: the pure decision what to omit, and its result."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.errors import ContextLengthExceeded
from atelier.generation_types import Dropped
from atelier.prompt_end import PromptEnd
from worker.engine.interface import ChatPrompt, InfillPrompt, Prompt
from worker.engine.prompt import context_overflow as fitting
from worker.engine.prompt.context_overflow import (
    ANSWER_SHARE,
    LEAST_ROOM,
    Fitted,
    Gap,
    cut_tokens,
    gaps,
    least_that_fits,
    prompt_rooms,
)

BOS = 1
TOO_LONG = 1000  # tokens; longer texts are not tokenised
few = settings(max_examples=60, deadline=None)
roles = st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=14)
bodies = st.lists(st.integers(1, 90), min_size=1, max_size=10)


def chat(pattern: str, length: int = 10) -> list[dict[str, Any]]:
    """A message for each letter, which is its role's first, of so many words."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[letter], "content": f"{at} " * length} for at, letter in enumerate(pattern)]


def letters(messages: list[dict[str, Any]]) -> str:
    return "".join(message["role"][0] for message in messages)


def tokenize(prompt: Prompt) -> list[int]:
    """A token a word, and two around every message; more than TOO_LONG are rejected."""
    if isinstance(prompt, ChatPrompt):
        tokens = [BOS]
        for message in prompt.messages:
            tokens += [2, *map(int, message["content"].split()), 3]
        if prompt.end is PromptEnd.CONTINUED_MESSAGE:
            tokens.pop()
    else:
        assert not isinstance(prompt, (str, InfillPrompt))
        tokens = prompt
    if len(tokens) > TOO_LONG:
        raise ContextLengthExceeded
    return tokens


def fit(prompt: Prompt, room: int, *, middle: bool = False) -> Fitted:
    return fitting.fit(prompt, [room], middle=middle, bos=BOS, tokenize=tokenize)


# Room.


def test_an_answer_has_the_room_that_it_requests() -> None:
    assert prompt_rooms(4096, 1000) == [3096]


def test_an_answer_without_a_limit_has_a_part_of_the_context() -> None:
    assert prompt_rooms(4096, None)[0] == 4096 - 4096 // ANSWER_SHARE


# Tokens.


def test_the_rolling_window_keeps_the_end() -> None:
    assert cut_tokens(range(10), 4, middle=False) == [6, 7, 8, 9]


def test_the_middle_is_cut_between_beginning_and_end() -> None:
    assert cut_tokens(range(10), 4, middle=True) == [0, 1, 8, 9]


def test_the_beginning_of_sequence_token_is_kept() -> None:
    assert cut_tokens([BOS, *range(10)], 4, middle=False, mark=1) == [BOS, 7, 8, 9]


@few
@given(st.lists(st.integers(), max_size=60), st.integers(2, 60), st.booleans(), st.integers(0, 1))
def test_as_many_tokens_are_kept_as_fit(tokens: list[int], room: int, middle: bool, mark: int) -> None:
    kept = cut_tokens(tokens, room, middle=middle, mark=mark)
    assert len(kept) == min(room, len(tokens))
    assert kept[:mark] == tokens[:mark]
    assert kept[-1:] == tokens[-1:]


# Messages.


def test_the_rolling_window_omits_whole_exchanges_after_the_system_message() -> None:
    messages = chat("suauau")
    assert [letters(gap.without(messages)) for gap in gaps(messages, middle=False)] == ["suau", "su"]


def test_truncating_the_middle_keeps_the_first_exchange_too() -> None:
    messages = chat("suauatau")
    assert [letters(gap.without(messages)) for gap in gaps(messages, middle=True)] == ["suau"]


def test_tool_calls_are_omitted_with_the_message_that_they_answer() -> None:
    messages = chat("uatauau")
    assert [letters(gap.without(messages)) for gap in gaps(messages, middle=False)] == ["uau", "u"]


@pytest.mark.parametrize("pattern", ["u", "su", "s", "sua", "uat"])
def test_nothing_is_omitted_from_a_single_exchange(pattern: str) -> None:
    assert gaps(chat(pattern), middle=False) == gaps(chat(pattern), middle=True) == []


@few
@given(roles, st.booleans())
def test_shortened_chats_keep_the_system_message_a_user_turn_next_and_the_end(pattern: list[str], middle: bool) -> None:
    messages = [{"role": role, "content": str(at)} for at, role in enumerate(pattern)]
    lengths = []
    for gap in gaps(messages, middle=middle):
        rest = gap.without(messages)
        assert len(gap) == len(messages) - len(rest) > 0
        assert rest[: gap.start] == messages[: gap.start]
        assert rest[gap.start]["role"] == "user"
        assert rest[-1] == messages[-1]
        lengths.append(len(gap))
    assert lengths == sorted(set(lengths)), "the least first"


@given(st.integers(0, 40), st.integers(0, 41))
def test_the_smallest_gap_that_fits_is_found_in_few_attempts(count: int, needed: int) -> None:
    tried: list[int] = []

    def attempt(gap: Gap) -> int | None:
        tried.append(len(gap))
        return len(gap) if len(gap) >= needed else None

    found = least_that_fits([Gap(0, end) for end in range(1, count + 1)], attempt)
    wanted = max(1, needed)
    assert found == ((Gap(0, wanted), wanted) if wanted <= count else None)
    assert len(tried) <= 6


# Whole prompts.


@pytest.mark.parametrize("middle", [True, False])
def test_a_prompt_that_fits_is_unchanged(middle: bool) -> None:
    prompt = ChatPrompt(chat("suau"))
    assert fit(prompt, 50, middle=middle) == Fitted(tokenize(prompt))


def test_a_long_chat_loses_its_oldest_messages_and_no_more_than_it_must() -> None:
    messages = chat("suauau")
    fitted = fit(ChatPrompt(messages), 50)
    assert fitted == Fitted(tokenize(ChatPrompt(messages[:1] + messages[3:])), Dropped(messages=2))


def test_a_long_chat_loses_its_middle() -> None:
    messages = chat("suauau")
    fitted = fit(ChatPrompt(messages), 60, middle=True)
    assert fitted == Fitted(tokenize(ChatPrompt(messages[:3] + messages[5:])), Dropped(messages=2))


def test_a_chat_too_long_to_tokenise_is_shortened_too() -> None:
    messages = chat("s" + "ua" * 100 + "u")
    fitted = fit(ChatPrompt(messages), 50)
    assert fitted.dropped.messages == 198
    assert len(fitted.tokens) <= 50


def test_the_rolling_window_rejects_a_last_message_that_is_too_long_itself() -> None:
    with pytest.raises(ContextLengthExceeded, match="truncateMiddle"):
        fit(ChatPrompt(chat("suau", 60)), 50)


def test_a_message_that_is_too_long_itself_loses_its_middle() -> None:
    messages = chat("suauau", 60)
    fitted = fit(ChatPrompt(messages), 50, middle=True)
    rest = tokenize(ChatPrompt(messages[:3] + messages[5:]))
    assert fitted.tokens == [*rest[:25], *rest[-25:]]
    assert fitted.dropped == Dropped(messages=2, tokens=len(rest) - 50)


def test_a_message_that_is_continued_stays_at_the_end() -> None:
    continued = ChatPrompt(chat("suauaua"), end=PromptEnd.CONTINUED_MESSAGE)
    for middle in (True, False):
        fitted = fit(continued, 70, middle=middle)
        assert fitted.dropped.messages
        assert fitted.tokens[-10:] == [6] * 10


def test_a_message_that_is_continued_and_too_long_itself_keeps_its_end() -> None:
    messages = [*chat("su"), {"role": "assistant", "content": " ".join(map(str, range(100)))}]
    continued = ChatPrompt(messages, end=PromptEnd.CONTINUED_MESSAGE)
    assert fit(continued, 50, middle=True).tokens[-25:] == list(range(75, 100))
    with pytest.raises(ContextLengthExceeded, match="truncateMiddle"):
        fit(continued, 50)


@pytest.mark.parametrize("middle", [True, False])
@few
@given(lengths=bodies, room=st.integers(LEAST_ROOM, 200))
def test_every_shortened_prompt_fits(middle: bool, lengths: list[int], room: int) -> None:
    messages = [
        {"role": "assistant" if at % 2 else "user", "content": "7 " * length} for at, length in enumerate(lengths)
    ]
    prompt = ChatPrompt(messages)
    try:
        fitted = fit(prompt, room, middle=middle)
    except ContextLengthExceeded:
        assert not middle
        return
    assert len(fitted.tokens) <= room
    assert (fitted.dropped == Dropped()) == (len(tokenize(prompt)) <= room)


def test_token_ids_are_truncated_and_counted() -> None:
    tokens = [BOS, *range(100, 200)]
    assert fit(tokens, 20) == Fitted([BOS, *range(181, 200)], Dropped(tokens=81))


@pytest.mark.parametrize("middle", [True, False])
def test_an_answer_that_leaves_no_room_for_a_prompt_is_rejected(middle: bool) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        fit(list(range(100)), LEAST_ROOM - 1, middle=middle)
    assert caught.value.param == "max_tokens"
    assert fit([5, 6], 2, middle=middle) == Fitted([5, 6]), "what is short enough needs no more"


def test_an_infill_prompt_is_not_truncated() -> None:
    prompt = InfillPrompt("a", "b")
    with pytest.raises(ContextLengthExceeded, match="suffix"):
        fitting.fit(prompt, [20], middle=True, bos=BOS, tokenize=lambda prompt: [0] * 30)


@pytest.mark.parametrize("middle", [True, False])
@few
@given(words=st.integers(1, 300), context=st.integers(128, 256))
def test_an_overflow_policy_rejects_nothing_that_fits_without_one(middle: bool, words: int, context: int) -> None:
    prompt = ChatPrompt(chat("u", 1) + chat("a", words))
    rooms = prompt_rooms(context, None)
    if len(tokenize(prompt)) < context:
        fitted = fitting.fit(prompt, rooms, middle=middle, bos=BOS, tokenize=tokenize)
        assert len(fitted.tokens) < context
