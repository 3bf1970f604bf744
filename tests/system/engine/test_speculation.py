"""Speculation with the real model: the texts are those of an engine without it.

Whether a draft pays depends on the machine and on what else it does. Here all rows of a step are free, so that drafts
are made wherever they are likely enough.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from atelier.submission import JsonSchema
from tests.support.worker.local_engine import LocalCall, LocalEngine
from worker.engine.speculation.step_times import StepTimes

pytestmark = pytest.mark.system

LIST = " ".join(f"Item {number} is a word." for number in range(20))
PROMPTS = [f"Repeat this: {LIST}", "Count from one to twenty.", "Name three colours, and then name them again."]
SCHEMA = json.dumps({"type": "array", "items": {"enum": ["a long name", "another name"]}, "minItems": 6, "maxItems": 6})
GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0}
DRAWN = {"temperature": 0.8, "repeat_penalty": 1.0}
LOAD = {"context_length": 1024, "parallel": 4, "reproducible": True, "threads": 1}
TOKENS = 28
SPECULATIONS = ("auto", "draft_model")


@pytest.fixture(scope="module")
def free_rows() -> Iterator[None]:
    def of(self: StepTimes, slots: Sequence[int], pending: Sequence[int]) -> Callable[[Sequence[int]], float]:
        return lambda drafts: 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepTimes, "of", of)
        yield


@pytest.fixture(scope="module")
def plain(starter_model: Path) -> Iterator[LocalEngine]:
    """An engine without speculation."""
    with closing(LocalEngine(starter_model, **LOAD)) as engine:
        yield engine


@pytest.fixture(scope="module", params=SPECULATIONS)
def guessing(request: pytest.FixtureRequest, starter_model: Path, free_rows: None) -> Iterator[LocalEngine]:
    """An engine with speculation; as a draft model the model drafts for itself."""
    draft = starter_model if request.param == "draft_model" else None
    with closing(LocalEngine(starter_model, draft, speculation=request.param, draft_tokens=4, **LOAD)) as engine:
        yield engine


def alone(engine: LocalEngine, prompt: str, sampling: dict[str, Any], **fields: Any) -> LocalCall:
    call = engine.submit(prompt, max_tokens=TOKENS, seed=5, sampling=sampling, **fields)
    engine.finish()
    return call


def together(engine: LocalEngine, sampling: dict[str, Any]) -> list[LocalCall]:
    calls = [engine.submit(prompt, max_tokens=TOKENS, seed=5, sampling=sampling) for prompt in PROMPTS]
    engine.finish()
    return calls


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_speculation_changes_no_text(plain: LocalEngine, guessing: LocalEngine, sampling: dict[str, Any]) -> None:
    expected = [alone(plain, prompt, sampling).text for prompt in PROMPTS]
    one_by_one = [alone(guessing, prompt, sampling) for prompt in PROMPTS]
    side_by_side = together(guessing, sampling)
    assert [call.text for call in one_by_one] == expected
    assert [call.text for call in side_by_side] == expected
    assert sum(call.accepted for call in (*one_by_one, *side_by_side)) > 0


@pytest.mark.parametrize("guessing", ["draft_model"], indirect=True)
def test_drafts_of_the_same_model_are_accepted(guessing: LocalEngine) -> None:
    calls = together(guessing, GREEDY)
    drafted, accepted = sum(call.drafted for call in calls), sum(call.accepted for call in calls)
    assert accepted > 15
    assert accepted / drafted > 0.95


@pytest.mark.parametrize("guessing", ["auto"], indirect=True)
def test_an_answer_that_was_given_before_is_drafted_from_the_pool(guessing: LocalEngine) -> None:
    prompt = "What is the capital of Portugal, and what is it known for?"
    first, again, other = (alone(guessing, prompt, GREEDY, key=key) for key in ("mine", "mine", "theirs"))
    assert first.text == again.text == other.text
    assert again.accepted > first.accepted == other.accepted
    assert again.accepted > TOKENS / 2


@pytest.mark.filterwarnings("ignore:llama_token_get_attr is deprecated")  # llguidance calls it
def test_a_constrained_text_is_drafted_within_its_grammar(plain: LocalEngine, guessing: LocalEngine) -> None:
    constraint = JsonSchema(SCHEMA)
    expected, found = (alone(engine, PROMPTS[0], GREEDY, constraint=constraint) for engine in (plain, guessing))
    assert found.text == expected.text


def test_sequences_that_cannot_speculate_run_beside_those_that_do(plain: LocalEngine, guessing: LocalEngine) -> None:
    def mixed(engine: LocalEngine) -> list[LocalCall]:
        calls = [
            engine.submit(PROMPTS[0], max_tokens=TOKENS, sampling=GREEDY),
            engine.submit(PROMPTS[1], max_tokens=TOKENS, sampling=GREEDY, logprobs=2),
        ]
        engine.finish()
        return calls

    expected, found = mixed(plain), mixed(guessing)
    assert [call.text for call in found] == [call.text for call in expected]
    assert [call.drafted > 0 for call in found] == [True, False]


def test_a_cancelled_sequence_does_not_change_the_texts_of_others(plain: LocalEngine, guessing: LocalEngine) -> None:
    expected = alone(plain, PROMPTS[0], GREEDY).text
    cancelled = guessing.submit(PROMPTS[1], max_tokens=200, sampling={**GREEDY, "ignore_eos": True})
    other = guessing.submit(PROMPTS[0], max_tokens=TOKENS, sampling=GREEDY)
    while not cancelled.text:
        guessing.step()
    cancelled.ticket.cancelled = True
    guessing.finish()
    assert other.text == expected
    assert alone(guessing, PROMPTS[0], GREEDY).text == expected
