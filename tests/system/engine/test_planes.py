"""Images with two-dimensional positions (M-RoPE), compared with libmtmd's own processing of the same prompts."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from atelier.errors import DecodeFailed
from tests.support.models.pictures import noise
from tests.support.models.tiny_projector import PLANES
from tests.support.worker.plane_engine import PlaneEngine, Prompt, same
from worker.engine.model.context import Context
from worker.engine.model.decode_run import Run
from worker.engine.prompt.prompt_preparation import Prepared

pytestmark = pytest.mark.system

WIDE, HIGH = noise(1, 84, 42), noise(2, 42, 98)  # cells: 6 x 3, 3 x 7
FIRST = Prompt("look at this: @ what is it", (WIDE,))
SECOND = Prompt("look at this: @ what is it and this @ which is larger", (WIDE, HIGH))


@pytest.fixture(params=sorted(PLANES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PlaneEngine]:
    engine = PlaneEngine(tmp_path, request.param)
    yield engine
    engine.close()


def test_text_after_images_equals_llama_cpps(engine: PlaneEngine) -> None:
    prompts = [
        FIRST,
        SECOND,
        Prompt("@@ two at once", (HIGH, WIDE)),
        Prompt("the same twice: @ and @ yes", (HIGH, HIGH)),
        Prompt("no image at all"),
    ]
    for prompt in prompts:
        assert same(engine.complete(prompt), [engine.reference(prompt)])


def test_cached_images_change_no_result(engine: PlaneEngine) -> None:
    (cold,) = engine.complete(SECOND)
    (warm,) = engine.complete(SECOND)
    assert cold.cached == 0
    assert warm.cached > warm.prompt - 8
    assert (warm.tokens, warm.logprobs) == (cold.tokens, cold.logprobs)
    longer = Prompt(SECOND.text + " or neither", SECOND.images)
    (next_turn,) = engine.complete(longer)
    assert next_turn.cached >= warm.cached
    assert same([next_turn], [engine.reference(longer)])


def test_a_prompt_that_diverges_keeps_the_common_prefix(engine: PlaneEngine) -> None:
    engine.complete(SECOND)
    after = Prompt("look at this: @ what is it and this @ no, the other", (WIDE, HIGH))
    other_second = Prompt(SECOND.text, (WIDE, WIDE))
    other_first = Prompt(SECOND.text, (HIGH, HIGH))
    turned = [engine.complete(prompt)[0] for prompt in (after, other_second, other_first)]
    assert turned[0].cached > turned[1].cached > turned[2].cached > 0
    assert same(turned, [engine.reference(prompt) for prompt in (after, other_second, other_first)])


def test_concurrent_prompts_give_the_same_as_alone(engine: PlaneEngine) -> None:
    prompts = [FIRST, SECOND, Prompt("tell me"), Prompt("@ now", (HIGH,)), FIRST, SECOND]
    together = engine.complete(*prompts)
    assert same(together, [engine.reference(prompt) for prompt in prompts])
    again = engine.complete(*reversed(prompts))[::-1]
    assert [(each.tokens, each.logprobs) for each in again] == [(each.tokens, each.logprobs) for each in together]
    assert all(each.cached for each in again)


@pytest.mark.parametrize("load", [{"ubatch_size": 32}, {"kv_unified": True}, {"flash_attention": False}], ids=str)
def test_an_image_in_several_calls_or_another_type_of_cache_gives_the_same(
    tmp_path: Path, load: dict[str, Any]
) -> None:
    engine = PlaneEngine(tmp_path, "qwen3vl_merger", **load)
    prompts = [Prompt("a large one: @ and @", (noise(4, 140, 98), WIDE)), FIRST]
    together = engine.complete(*prompts)
    assert together[0].prompt > 70 + 18
    assert same(together, [engine.reference(prompt) for prompt in prompts])
    engine.close()


def test_an_image_is_scaled_down_to_half_of_the_context(engine: PlaneEngine) -> None:
    large, larger = (Prompt("look: @ what", (noise(5, *size),)) for size in ((560, 420), (2000, 1500)))
    completions = engine.complete(large, larger)
    assert all(200 < each.prompt < 256 + 100 for each in completions)
    assert same(completions, [engine.reference(large), engine.reference(larger)])


def compute(context: Context, slot: int, prepared: Prepared) -> None:
    """Compute the prompt, image by image and the text between them."""
    borders = sorted({0, len(prepared.tokens), *prepared.images, *_ends(prepared)})
    for start, end in pairwise(borders):
        run = Run(slot, prepared.tokens[start:end], start, end - start, image=prepared.images.get(start))
        context.decode_runs([run])


def _ends(prepared: Prepared) -> list[int]:
    return [start + len(image) for start, image in prepared.images.items()]


def goes_on(context: Context, slot: int, tokens: int) -> NDArray[Any]:
    """The logits after so many tokens; the computed token is removed again."""
    logits = []
    for step in range(4):
        context.decode_runs([Run(slot, [40 + step], tokens + step, 0)])
        logits.append(context.logits(0).copy())
    context.keep_prefix(slot, tokens)
    return np.stack(logits)


def test_a_truncated_copied_or_restored_cache_continues_as_a_computed_one(engine: PlaneEngine) -> None:
    prepared = engine.prepare(SECOND)
    first, second = sorted(prepared.images)
    behind, end = sorted(_ends(prepared))
    with engine.context() as context:
        compute(context, 0, prepared)
        state = context.state(0)
        assert state.size == context.state_size(0)
        for tokens in (len(prepared.tokens), end, second, behind, first):
            context.keep_prefix(0, tokens)
            expected = goes_on(context, 0, tokens)
            context.copy(0, 1)
            assert np.array_equal(goes_on(context, 1, tokens), expected)
            context.put_state(2, state)
            context.keep_prefix(2, tokens)
            assert np.array_equal(goes_on(context, 2, tokens), expected)


def test_an_interrupted_image_is_computed_from_its_start(engine: PlaneEngine) -> None:
    prepared = engine.prepare(FIRST)
    ((first, image),) = prepared.images.items()
    with engine.context() as context:
        compute(context, 1, prepared)
        begun = Run(0, prepared.tokens[first : first + 10], first, 10, image=image.part(0, 10))
        behind, rest = first + len(image), prepared.tokens[first + len(image) :]
        context.decode_runs([Run(0, prepared.tokens[:first], 0, first)])
        context.decode_runs([begun])
        context.keep_prefix(0, first)
        context.decode_runs([begun])
        others = image.part(10, len(image))
        context.decode_runs([Run(0, prepared.tokens[first + 10 : behind], first + 10, len(others), image=others)])
        context.decode_runs([Run(0, rest, behind, len(rest))])
        tokens = len(prepared.tokens)
        np.testing.assert_allclose(goes_on(context, 0, tokens), goes_on(context, 1, tokens), atol=1e-4)


def test_a_cache_is_neither_cut_inside_an_image_nor_restored_from_a_corrupt_state(engine: PlaneEngine) -> None:
    prepared = engine.prepare(FIRST)
    (first,) = prepared.images
    with engine.context() as context:
        compute(context, 0, prepared)
        with pytest.raises(DecodeFailed):
            context.keep_prefix(0, first + 1)
        state = context.state(0)
        for spoilt in (state[:-100], state[100:], state[:-4], state[:0]):
            with pytest.raises(DecodeFailed):
                context.put_state(1, spoilt)
        compute(context, 1, prepared)
        tokens = len(prepared.tokens)
        assert np.array_equal(goes_on(context, 1, tokens), goes_on(context, 0, tokens))
