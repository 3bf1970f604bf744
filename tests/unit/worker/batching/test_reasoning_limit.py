"""Completions whose reasoning has a budget, on a context without a model. The text of a token is its number."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.generation_types import StopReason
from tests.support.worker.batching import Batching, Call
from worker.engine.constraint.constraint_matcher import MOST_FORCED
from worker.engine.sampling.reasoning_budget import ReasoningLimit, Reopening
from worker.output.family_format import ReasoningMarks
from worker.output.parser_choice import ParserChoice

START, END = 254, 255
OPENED = ParserChoice(reasoning=ReasoningMarks("<think>", f"{END} "), opened="<think>")
MARKED = ParserChoice(reasoning=ReasoningMarks(f"{START} ", f"{END} "))
PROMPT = list(range(20, 60))
ENDLESS = {"ignore_eos": True, "max_tokens": 40, "repeat_penalty": 1.0}


def limit(budget: int, message: list[int] | None = None, closing: list[int] | None = None) -> ReasoningLimit:
    closing = closing or [END]
    text = "".join(f"{token} " for token in closing)
    return ReasoningLimit(budget, text, closing, message or (), Reopening((), START))


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split()]


def run(batching: Batching, budget: int, parsed: ParserChoice = OPENED, **options: Any) -> Call:
    given = options.pop("limit", limit(budget))
    call = batching.submit(PROMPT, parsed=parsed, limit=given, **{**ENDLESS, **options})
    batching.finish()
    assert call.complete
    return call


@given(budget=st.integers(0, 30), choices=st.integers(1, 3), temperature=st.sampled_from([0.0, 1.0]))
def test_every_choice_reasons_for_its_budget(budget: int, choices: int, temperature: float) -> None:
    # A token of the end mark's number ends the reasoning as well, so it is made impossible.
    options = {"choices": choices, "temperature": temperature, "logit_bias": {START: -100.0, END: -100.0}}
    call = run(Batching(), budget, **options)
    for choice in range(choices):
        assert len(numbers(call.reasonings[choice])) == budget
        assert len(call.tokens(choice)) == 40 - budget - 1
        assert call.finished[choice].statistics.reasoning_tokens == budget
        assert call.finished[choice].reason is StopReason.MAX_PREDICTED_TOKENS_REACHED


@given(budget=st.integers(0, 30))
def test_drafts_beyond_the_budget_are_not_accepted(budget: int) -> None:
    """The context repeats a few tokens, so that drafts of what follows are right until the reasoning is ended."""
    plain = run(Batching(exact=True, mumbles=True), budget)
    drafted = run(Batching(exact=True, mumbles=True, draft_tokens=6), budget)
    assert drafted.reasonings == plain.reasonings
    assert drafted.texts == plain.texts
    statistics = drafted.finished[0].statistics
    assert statistics.reasoning_tokens == budget
    assert statistics.accepted_draft_tokens > 0


def test_reasoning_may_end_before_its_budget() -> None:
    call = run(Batching(), 20, logit_bias={END: 100.0}, max_tokens=1)
    assert (call.reasonings, call.texts) == ([""], [""])
    assert call.finished[0].statistics.reasoning_tokens == 0


def test_reasoning_that_has_ended_does_not_begin_again_beyond_its_budget() -> None:
    """A bias begins the reasoning at every opportunity."""
    call = run(Batching(), 5, MARKED, logit_bias={START: 100.0, END: -100.0})
    assert len(numbers(call.reasonings[0])) == 5
    assert START not in call.tokens()
    assert len(call.tokens()) == 40 - 5 - 2
    again = run(Batching(), 5, MARKED, logit_bias={START: 100.0, END: -100.0}, limit=ReasoningLimit(5, "255 ", [END]))
    assert again.texts == [""], "without a token that begins it, each further one is ended at once"
    assert again.finished[0].statistics.reasoning_tokens == 5


def test_the_budget_is_for_all_reasoning_together() -> None:
    biases = {START: -100.0, END: -100.0}
    first = run(Batching(), 12, MARKED, limit=limit(12), logit_bias=biases)
    assert first.reasonings == [""]
    # The end mark follows at once here: two reasonings of nothing leave the budget unchanged.
    call = run(Batching(), 2, OPENED, logit_bias=biases)
    assert len(numbers(call.reasonings[0])) == 2


@pytest.mark.parametrize("logprobs", [None, 0])
def test_an_end_of_many_tokens_is_written_over_several_steps(logprobs: int | None) -> None:
    closing = [*range(100, 100 + 2 * MOST_FORCED), END]
    marks = ReasoningMarks("<think>", "".join(f"{token} " for token in closing))
    parsed = ParserChoice(reasoning=marks, opened="<think>")
    given = ReasoningLimit(3, marks.end, closing)
    call = run(Batching(), 3, parsed, limit=given, max_tokens=100, logprobs=logprobs, logit_bias={END: -100.0})
    assert len(numbers(call.reasonings[0])) == 3
    assert len(call.tokens()) == 100 - 3 - len(closing)
    assert call.finished[0].statistics.predicted_tokens == 100
    if logprobs is not None:
        assert len(call.logprobs) == 100


def test_a_message_is_a_part_of_the_budget() -> None:
    message = [201, 202, 203]
    call = run(Batching(), 10, limit=limit(10, message), logit_bias={END: -100.0})
    assert numbers(call.reasonings[0])[-3:] == message
    assert call.finished[0].statistics.reasoning_tokens == 10


def test_max_tokens_may_end_the_reasoning_and_its_end() -> None:
    biases = {END: -100.0}
    call = run(Batching(), 30, max_tokens=10, logit_bias=biases)
    assert (call.texts, call.finished[0].statistics.reasoning_tokens) == ([""], 10)
    cut = run(Batching(), 9, max_tokens=10, logit_bias=biases)
    assert (cut.texts, cut.finished[0].statistics.reasoning_tokens) == ([""], 9)
    assert cut.finished[0].reason is StopReason.MAX_PREDICTED_TOKENS_REACHED
