"""`make words`: finds the idioms that the table "Words" in CONTRIBUTING.md lists, and what to write instead."""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
CHECKED = ("*.py", "*.md", "*.proto", "*.toml", "*.yaml", "Makefile")
GENERATED = re.compile(r"protos/\w+_pb2")
ROW = re.compile(r"^\| (`[^|]+`) +\| +([^|]+?) +\|$", re.MULTILINE)
MARK = "# words: "  # then the reason for which the line keeps its words
SECTION = re.compile(r"^## Words\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)

# A phrase may go over a line's end, into the next comment line too; in a name its words are joined by "_" or capitals.
BETWEEN = r"[\s_#]+"
GAP = rf"(?:{BETWEEN}[^\s_]+){{1,3}}?"
BEGIN = r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"
END = r"(?:(?![A-Za-z])|(?<=[a-z])(?=[A-Z]))"
STATEMENT_STARTS = {tokenize.ENCODING, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


class Idiom(NamedTuple):
    pattern: re.Pattern[str]
    needle: str  # a word of the phrase, in lower case: a text without it need not be searched
    instead: str


class Finding(NamedTuple):
    line: int
    written: str
    instead: str


def read_table(guide: str) -> list[Idiom]:
    """The idioms of the guide's table. Raises ValueError when it has none."""
    section = SECTION.search(guide)
    rows = ROW.findall(section[0]) if section else []
    if not rows:
        raise ValueError(f'{GUIDE.name} has no table under "Words"')
    return [_idiom(phrase, instead) for phrases, instead in rows for phrase in re.findall(r"`([^`]+)`", phrases)]


def _idiom(phrase: str, instead: str) -> Idiom:
    """In a phrase, `a/b` is either word and `…` one to three words."""
    pattern = ""
    for word in phrase.split():
        if word == "…":
            pattern += GAP
        else:
            either = "|".join(map(re.escape, word.split("/")))
            pattern += (BETWEEN if pattern else "") + f"(?:{either})"
    fixed = [word for word in phrase.split() if "/" not in word and word != "…"]
    return Idiom(re.compile(f"{BEGIN}(?i:{pattern}){END}"), max(fixed, key=len, default="").lower(), instead)


def find_idioms(text: str, idioms: Iterable[Idiom]) -> list[Finding]:
    """Every idiom in the text, in the order of lines, which count from 1; but for lines marked `# words: REASON`."""
    lines = text.split("\n")
    found = [
        Finding(text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), idiom.instead)
        for idiom in idioms
        for match in idiom.pattern.finditer(text)
    ]
    return sorted(finding for finding in found if MARK not in lines[finding.line - 1])


def without_literals(source: str) -> str:
    """Python source with its strings blanked, docstrings excepted: in tests they are data."""
    lines = [list(line) for line in source.splitlines(keepends=True)]
    at_start = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        literal = token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING")
        if literal and not at_start:
            _blank(lines, token.start, token.end)
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            at_start = token.type in STATEMENT_STARTS
    return "".join(map("".join, lines))


def _blank(lines: list[list[str]], start: tuple[int, int], end: tuple[int, int]) -> None:
    for number in range(start[0] - 1, end[0]):
        line = lines[number]
        first = start[1] if number == start[0] - 1 else 0
        last = end[1] if number == end[0] - 1 else len(line)
        for column in range(first, last):
            if line[column] != "\n":
                line[column] = " "


def checked_text(path: Path, root: Path = ROOT) -> str:
    """What is checked of a file: no test data, and not the table itself."""
    text = path.read_text()
    if path == root / GUIDE.name:
        return SECTION.sub(lambda section: "\n" * section[0].count("\n"), text)
    in_tests = path.is_relative_to(root / "tests")
    return without_literals(text) if in_tests and path.suffix == ".py" else text


def checked_files(root: Path = ROOT) -> Iterator[Path]:
    """The tracked files that somebody writes by hand."""
    listed = subprocess.run(["git", "ls-files", "-z", *CHECKED], cwd=root, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if not GENERATED.match(name) and (root / name).exists():
            yield root / name


def main() -> int:
    """Print `file:line: idiom -> instead` for each finding; 1 if there are any."""
    idioms = read_table(GUIDE.read_text())
    found = 0
    for path in checked_files():
        for line, written, instead in find_idioms(checked_text(path), idioms):
            print(f"{path.relative_to(ROOT)}:{line}: {written} -> {instead}")
            found += 1
    if found:
        print(f'{found} idioms; CONTRIBUTING.md has the table, under "Words".', file=sys.stderr)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
