"""Sequences with different adapters in one context: none has a token computed with another's adapters.

The context's logits tell which adapters each token in the cache was computed with, and it refuses calls that mix them.
"""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.lora_adapters import Scales
from tests.support.worker.batching import Batching, Call

NONE: Scales = ()
HALF: Scales = (0.5, 0.0)
FULL: Scales = (1.0, 0.0)
SYSTEM = tuple(range(20, 100))
PROMPT = (*SYSTEM, *range(100, 140))


@cache
def alone(prompt: tuple[int, ...], scales: Scales, exact: bool) -> list[int]:
    return Batching(1, reuse=False, exact=exact).run(prompt, scales=scales)


def agree(calls: list[Call], scales: list[Scales], *, exact: bool = True) -> bool:
    """Every choice has the tokens that it has where nothing else runs."""
    return all(
        call.tokens(choice) == alone(call.prompt, each, exact)
        for call, each in zip(calls, scales, strict=True)
        for choice in range(len(call.texts))
    )


def test_adapters_and_their_scales_change_the_tokens() -> None:
    assert len({tuple(alone(PROMPT, scales, True)) for scales in (NONE, HALF, FULL)}) == 3


def test_sequences_with_different_adapters_run_side_by_side() -> None:
    batching = Batching(4)
    kinds = [NONE, HALF, FULL, HALF]
    calls = [batching.submit(PROMPT, scales=scales) for scales in kinds]
    batching.step()
    assert batching.batcher.active == 4
    batching.finish()
    assert agree(calls, kinds, exact=False)


def test_sequences_with_the_same_adapters_share_a_decode_call() -> None:
    batching = Batching(4, exact=True)
    kinds = [HALF, FULL, HALF, FULL]
    for number, scales in enumerate(kinds):
        batching.submit((number + 1, *PROMPT), scales=scales, max_tokens=100, ignore_eos=True)
    while not all(call.counts[0] for call in batching.calls):
        batching.step()
    before = len(batching.context.calls)
    batching.step()
    assert [len(call.slots) for call in batching.context.calls[before:]] == [2, 2]


def test_a_cached_prompt_is_not_reused_with_other_adapters() -> None:
    batching = Batching(2, exact=True)
    kinds = [NONE, FULL, HALF, NONE, FULL]
    calls = []
    for scales in kinds:
        calls.append(batching.submit(PROMPT, scales=scales))
        batching.finish()
    assert agree(calls, kinds)
    assert [call.finished[0].statistics.cached_tokens for call in calls[:3]] == [0, 0, 0]


def test_a_cached_prompt_is_reused_with_the_same_adapters() -> None:
    batching = Batching(2, exact=True)
    calls = []
    for _ in range(2):
        calls.append(batching.submit(PROMPT, scales=FULL))
        batching.finish()
    assert agree(calls, [FULL, FULL])
    assert calls[1].finished[0].statistics.cached_tokens > len(SYSTEM)


@pytest.mark.parametrize("length", [8, 40])
def test_a_cached_answer_is_continued_only_with_the_same_adapters(length: int) -> None:
    """The prompt is shorter than a block, so it is not a cached piece itself."""
    batching = Batching(1, exact=True)
    first = batching.submit(PROMPT[:length], scales=FULL, max_tokens=60, ignore_eos=True)
    batching.finish()
    conversation = (*first.prompt, *first.tokens(), *range(200, 220))
    other, same = [], []
    for scales, calls in ((FULL, same), (HALF, other)):
        calls.append(batching.submit(conversation, scales=scales))
        batching.finish()
    assert agree(same, [FULL])
    assert agree(other, [HALF])
    assert same[0].finished[0].statistics.cached_tokens >= 48
    assert other[0].finished[0].statistics.cached_tokens == 0


def test_choices_share_a_prompt_only_with_the_same_adapters() -> None:
    batching = Batching(4, exact=True)
    kinds = [FULL, HALF]
    calls = [batching.submit(PROMPT, scales=scales, choices=2) for scales in kinds]
    batching.finish()
    assert agree(calls, kinds)
    computed = sum(call.tokens for call in batching.context.calls if call.kind == "prompt")
    assert computed == 2 * len(PROMPT), "once for each scale"


def test_a_saved_state_is_restored_only_with_the_same_adapters() -> None:
    batching = Batching(1, cache_ram=10**6)
    kinds = [NONE, FULL, HALF] * 2
    calls = []
    for scales in kinds:
        calls.append(batching.submit((*PROMPT, *PROMPT), scales=scales))
        batching.finish()
    assert agree(calls, kinds, exact=False)
    assert [call.finished[0].statistics.cached_tokens > 0 for call in calls] == [False] * 3 + [True] * 3


submissions = st.tuples(
    st.sampled_from([PROMPT, SYSTEM, PROMPT[:24], (*SYSTEM, 7, 8, 9)]),
    st.sampled_from([NONE, HALF, FULL]),
    st.integers(1, 2),
    st.integers(0, 3),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(submissions, max_size=12), st.booleans(), st.integers(1, 4))
def test_concurrent_calls_do_not_change_the_tokens_of_a_calls_adapters(
    submitted: list[tuple[tuple[int, ...], Scales, int, int]], exact: bool, slots: int
) -> None:
    batching = Batching(slots, exact=exact)
    for prompt, scales, choices, steps in submitted:
        batching.submit(prompt, scales=scales, choices=choices)
        for _ in range(steps):
            batching.step()
    batching.finish()
    assert agree(batching.calls, [scales for _, scales, _, _ in submitted], exact=exact)
