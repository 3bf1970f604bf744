"""The check behind `make words`."""

import pytest

from tests.lint.plain_words import (
    GUIDE,
    Finding,
    checked_files,
    checked_text,
    find_idioms,
    read_table,
    without_literals,
)

TABLE = """
## Words

| Not | Instead |
| --- | --- |
| `told` | reported |
| `go/goes on with`, `of which each` | continue |
| `hold/holds … against` | check against |

## Tests

| `plain` | not in the table |
"""


def found(text: str) -> list[Finding]:
    return find_idioms(text, read_table(TABLE))


def test_an_idiom_is_found_with_its_line_and_what_to_write_instead() -> None:
    assert found("one\nTold you.\n") == [Finding(2, "Told", "reported")]


@pytest.mark.parametrize("name", ["told_name", "is_told", "TOLD_LEVELS", "ToldName", "toldName", "wasTold"])
def test_an_idiom_is_found_inside_a_name(name: str) -> None:
    assert len(found(f"x = {name}()")) == 1


@pytest.mark.parametrize("text", ["retold", "toldo", "go on\n\nwithout", "holds it", "of whichever", "a plain word"])
def test_other_words_are_not_found(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text", ["It goes on with that.", "# it goes on\n# with that", "holds the file against", "holds a b c against"]
)
def test_a_phrase_is_found_over_line_ends_and_with_words_between(text: str) -> None:
    assert [finding.line for finding in found(text)] == [1]


def test_a_gap_is_at_most_three_words() -> None:
    assert found("holds one two three four against") == []


def test_a_guide_without_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="Words"):
        read_table("## Tests\n\n| `told` | reported |\n")


def test_strings_are_blanked_and_docstrings_are_kept() -> None:
    source = 'def f():\n    """Told."""\n    return "told", f"told {told}"  # told\n'
    kept = without_literals(source)
    assert [line.lower().count("told") for line in kept.splitlines()][:2] == [0, 1]
    assert kept.splitlines()[2].endswith("# told")
    assert '"told"' not in kept
    assert len(kept) == len(source)


def test_the_guides_own_table_is_not_checked() -> None:
    text = checked_text(GUIDE)
    assert "`told`" not in text
    assert len(text.splitlines()) == len(GUIDE.read_text().splitlines())


def test_generated_stubs_are_not_checked() -> None:
    names = {path.name for path in checked_files()}
    assert "plain_words.py" in names
    assert not any("_pb2" in name for name in names)


def test_a_line_that_gives_a_reason_keeps_its_words() -> None:
    assert found("a = 'told'  # words: a prompt\nb = 'told'") == [Finding(2, "told", "reported")]
