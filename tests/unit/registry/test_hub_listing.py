"""Which files of a repository a request selects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import InvalidRequest, NotFound
from registry.hub.download_retry import FIRST_DELAY, LONGEST_DELAY, MOST_IN_A_ROW, Patience
from registry.hub.hub_listing import (
    RepoFile,
    Repository,
    Variant,
    default_variant,
    projector_of,
    quantization_of,
    select,
    variants_of,
)
from registry.hub.hub_reference import HubReference

ID = "acme/Tiny-GGUF"


def repository(*paths: str) -> Repository:
    return Repository(ID, "c" * 40, tuple(RepoFile(path, 100 + n, f"sha256:{n}") for n, path in enumerate(paths)))


def chosen(found: Repository, reference: HubReference | None = None) -> list[str]:
    return [file.path for file in select(found, reference or HubReference(ID)).files]


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("Tiny-Q4_K_M.gguf", "Q4_K_M"),
        ("tiny.q8_0.gguf", "Q8_0"),
        ("Tiny-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Tiny-IQ2_XXS-00001-of-00003.gguf", "IQ2_XXS"),
        ("tiny-bf16.gguf", "BF16"),
        ("Tiny.gguf", ""),
    ],
)
def test_the_quantisation_is_read_from_the_name(name: str, quantization: str) -> None:
    assert quantization_of(name) == quantization


def test_the_parts_of_a_model_are_one_variant() -> None:
    found = variants_of(repository("b-Q8_0-00002-of-00002.gguf", "b-Q8_0-00001-of-00002.gguf", "a-Q4_0.gguf").files)
    assert [(each.quantization, len(each.files), each.size) for each in found] == [("Q4_0", 1, 102), ("Q8_0", 2, 201)]
    assert [file.path for file in found[1].files] == ["b-Q8_0-00001-of-00002.gguf", "b-Q8_0-00002-of-00002.gguf"]


def test_incomplete_parts_are_not_a_variant() -> None:
    assert (
        variants_of(repository("b-Q8_0-00002-of-00002.gguf", "README.md", "mmproj-F16.gguf", "x.imatrix.gguf").files)
        == []
    )


def test_the_same_name_in_two_folders_is_two_variants() -> None:
    paths = ("Q4/a-00001-of-00001.gguf", "Q8/a-00001-of-00001.gguf")
    assert len(variants_of(repository(*paths).files)) == 2


def test_the_default_quantisation_is_chosen_where_none_is_named() -> None:
    assert chosen(repository("a-F16.gguf", "a-Q8_0.gguf", "a-Q4_K_M.gguf", "a-Q2_K.gguf")) == ["a-Q4_K_M.gguf"]
    assert chosen(repository("a-F32.gguf", "a-F16.gguf")) == ["a-F32.gguf"]  # the first by name


@pytest.mark.parametrize("wanted", ["q8_0", "Q8_0"])
def test_a_quantisation_is_matched_in_any_case(wanted: str) -> None:
    assert chosen(repository("a-Q4_0.gguf", "a.q8_0.gguf"), HubReference(ID, quantization=wanted)) == ["a.q8_0.gguf"]


def test_a_quantisation_may_be_named_without_its_makers_prefix() -> None:
    found = repository("a-UD-Q4_K_XL.gguf", "a-Q4_K_M.gguf")
    assert chosen(found, HubReference(ID, quantization="q4_k_xl")) == ["a-UD-Q4_K_XL.gguf"]


def test_the_quantisation_without_prefix_is_preferred() -> None:
    found = repository("a-UD-Q4_K_M.gguf", "a-Q4_K_M.gguf")
    assert chosen(found, HubReference(ID, quantization="q4_k_m")) == ["a-Q4_K_M.gguf"]


def test_two_files_of_one_quantisation_have_to_be_chosen_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"a-Q4_0\.gguf, b-Q4_0\.gguf"):
        chosen(repository("a-Q4_0.gguf", "b-Q4_0.gguf"), HubReference(ID, quantization="q4_0"))


def test_a_request_for_something_else_is_answered_with_the_available_files() -> None:
    with pytest.raises(NotFound, match="Q4_0, Q8_0"):
        chosen(repository("a-Q4_0.gguf", "a-Q8_0.gguf"), HubReference(ID, quantization="q2_k"))
    with pytest.raises(NotFound, match="Q4_0"):
        chosen(repository("a-Q4_0.gguf"), HubReference(ID, file="b.gguf"))
    with pytest.raises(NotFound, match="no GGUF"):
        chosen(repository("model.safetensors"))


def test_any_part_selects_its_model() -> None:
    paths = ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf")
    assert chosen(repository(*paths), HubReference(ID, file=paths[1])) == [*paths]


def test_a_projector_is_rejected_as_a_model() -> None:
    with pytest.raises(InvalidRequest):
        chosen(repository("a-Q4_0.gguf", "mmproj-a-F16.gguf"), HubReference(ID, file="mmproj-a-F16.gguf"))


def test_the_projector_is_downloaded_with_its_model() -> None:
    found = repository("a-Q4_0.gguf", "mmproj-a-F32.gguf", "mmproj-a-F16.gguf", "mmproj-a-BF16.gguf")
    assert chosen(found) == ["a-Q4_0.gguf", "mmproj-a-F16.gguf"]
    projector = projector_of(repository("mmproj.gguf").files)
    assert projector is not None


@given(st.permutations(["Q4_K_M", "Q8_0", "Q2_K", "F16", ""]))
def test_the_default_choice_does_not_depend_on_the_order(kinds: list[str]) -> None:
    variants = [Variant(kind, (RepoFile(f"{kind}.gguf", 1, "sha256:0"),)) for kind in kinds]
    assert default_variant(variants).quantization == "Q4_K_M"


def test_retries_end_only_after_consecutive_failures() -> None:
    patience = Patience()
    for _ in range(MOST_IN_A_ROW):
        patience = patience.after_failure(0)
    assert not patience.exhausted
    assert patience.after_failure(1) == Patience(1, 1)
    assert patience.after_failure(0).exhausted


@given(st.integers(1, 100))
def test_delays_grow_up_to_the_longest(failures: int) -> None:
    delay = Patience(0, failures).delay
    assert FIRST_DELAY <= delay <= LONGEST_DELAY
    assert delay <= Patience(0, failures + 1).delay
