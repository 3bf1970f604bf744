import numpy as np
import pytest

from atelier.errors import ContextLengthExceeded, InvalidRequest
from worker.engine.embedding import batches, check_dimensions, check_lengths, unit_vectors
from worker.engine.model.control_tokens import ControlToken, ControlTokens
from worker.engine.prompt.ranking import fill


def lengths(*sizes: int, room: int = 10, most: int = 4) -> list[list[int]]:
    return [[len(each) for each in batch] for batch in batches([[0] * size for size in sizes], room, most)]


def test_as_many_whole_inputs_as_fit_share_a_batch() -> None:
    assert lengths(4, 4, 4, 2, 8) == [[4, 4], [4, 2], [8]]


def test_an_input_longer_than_a_batch_has_a_separate_batch() -> None:
    assert lengths(3, 25, 3) == [[3], [25], [3]]


def test_a_batch_has_no_more_inputs_than_sequences() -> None:
    assert lengths(1, 1, 1, 1, 1, 1) == [[1, 1, 1, 1], [1, 1]]


def test_no_input_makes_no_batch() -> None:
    assert lengths() == []


def test_vectors_are_truncated_and_then_normalised() -> None:
    vectors = np.array([[3, 4, 12], [0, 0, 5]], np.float32)
    assert unit_vectors(vectors, 2) == [pytest.approx([0.6, 0.8]), [0, 0]]
    assert np.linalg.norm(unit_vectors(vectors, None), axis=1) == pytest.approx(1)


@pytest.mark.parametrize("dimensions", [0, 9])
def test_more_dimensions_than_the_model_has_are_rejected(dimensions: int) -> None:
    with pytest.raises(InvalidRequest, match="between 1 and 8"):
        check_dimensions(dimensions, 8)
    check_dimensions(8, 8)


def test_the_first_input_that_is_too_long_is_named() -> None:
    with pytest.raises(ContextLengthExceeded, match="Input 2 has 6 tokens"):
        check_lengths([[1], [1] * 5, [1] * 6, [1] * 9], 5, "input")


def test_a_rerank_template_is_filled_in_one_pass() -> None:
    assert fill("Q: {query} D: {document}", "{document}", "x", ControlTokens([])) == ["Q: {document} D: x"]


def test_only_the_control_tokens_of_a_rerank_template_count() -> None:
    tokens = ControlTokens([ControlToken(1, "<s>"), ControlToken(2, "<|doc|>", is_word=True)])
    filled = fill("<s>{query}<|doc|>{document}<s>", "a<s>", "b<|doc|><s>", tokens)
    assert filled == [1, "a<s>", 2, "b<", "|doc|><s>", 1]
