"""Models in parts: which wheels, and which parts are in them."""

import pytest

from atelier.errors import NotFound
from registry.hub.wheel_parts import (
    PartFile,
    check_sequence,
    listed_digest,
    part_files,
    part_package,
    required_parts,
    sibling,
    whole_package,
)


@pytest.mark.parametrize(
    ("package", "part"),
    [
        ("gemma-gguf-part1", ("gemma-gguf", 1)),
        ("Gemma_GGUF.Part-012", ("gemma-gguf", 12)),
        ("gemma-gguf", None),
        ("gemma-part", None),
        ("part1", None),
        ("gemma-department1", None),
    ],
)
def test_a_part_is_recognised_by_its_name(package: str, part: tuple[str, int] | None) -> None:
    assert part_package(package) == part
    assert whole_package(package) == (part[0] if part else package)


@pytest.mark.parametrize(
    ("package", "named"), [("x-part1", "x-part12"), ("x_part01", "x-part12"), ("x-part-001", "x-part-012")]
)
def test_another_part_is_named_in_the_same_way(package: str, named: str) -> None:
    assert sibling(package, 12) == named


def requiring(*requirements: str) -> str:
    return "\n".join(["Name: x", *(f"Requires-Dist: {each}" for each in requirements), "", "Requires-Dist: x-part9"])


def test_required_parts_are_ordered_by_number_and_keep_their_versions() -> None:
    metadata = requiring(
        "X_Part10==1.0", *(f"x-part{number} (>=1.0,<2)" for number in range(9, 0, -1)), "numpy", "y-part1"
    )
    parts = required_parts("x", metadata)
    assert [part.number for part in parts] == list(range(1, 11))
    assert [str(parts[0]), str(parts[-1])] == ["x-part1>=1.0,<2", "x-part10==1.0"]


def test_a_requirement_with_a_url_or_an_option_is_not_followed() -> None:
    metadata = requiring("x-part1 @ https://example.org/x.whl", "x-part2 --index-url=x", "x-part3; sys_platform == 'x'")
    assert required_parts("x", metadata) == []


@pytest.mark.parametrize("numbers", [(1, 3), (2, 3), (1, 1, 2)])
def test_required_parts_with_a_gap_are_rejected(numbers: tuple[int, ...]) -> None:
    with pytest.raises(NotFound, match="others are missing"):
        required_parts("x", requiring(*(f"x-part{number}" for number in numbers)))


def test_part_files_are_ordered_by_index() -> None:
    names = ["x/a.gguf.part10", "x/a.gguf.part9", "x/__init__.py", "x/a.gguf", "x/a.gguf.md"]
    assert [part.path for part in part_files(names)] == ["x/a.gguf.part9", "x/a.gguf.part10"]
    for name, index in (("a.gguf-split-003", 3), ("a.gguf.part_aa", 0), ("a.gguf.partba", 26), ("a.gguf.7", 7)):
        assert part_files([name]) == [PartFile(name, "a.gguf", index)]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("a.gguf", 0), ("b.gguf", 1)],
        [("a.gguf", 0), ("a.gguf", 2)],
        [("a.gguf", 1), ("a.gguf", 0)],
        [("a.gguf", 2)],
    ],
)
def test_parts_that_are_not_consecutive_are_rejected(parts: list[tuple[str, int]]) -> None:
    with pytest.raises(NotFound):
        check_sequence("x", [PartFile(f"{model}.part{index}", model, index) for model, index in parts])


@pytest.mark.parametrize("first", [0, 1])
def test_parts_may_be_counted_from_zero_or_one(first: int) -> None:
    check_sequence("x", [PartFile(f"a.gguf.part{index}", "a.gguf", index) for index in range(first, first + 3)])


def test_a_digest_is_found_by_the_files_name() -> None:
    digest = "aB" * 32
    sums = f"{'0' * 64}  b.gguf\n{digest} *data/a.gguf\nnonsense\n"
    assert listed_digest(sums, "a.gguf") == digest.lower()
    assert listed_digest(sums, "c.gguf") == listed_digest("", "a.gguf") == ""
