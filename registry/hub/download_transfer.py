"""Transfers all files of one download into its own folder, complete and verified. Blocks; for threads."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import DiskFull, DownloadDamaged
from registry.hub.download_record import PYPI, Download
from registry.hub.hub_client import Hub
from registry.hub.hub_listing import RepoFile
from registry.hub.hub_reference import PackageReference, read_reference
from registry.hub.package_model import fetch_package
from registry.hub.resumable_fetch import fetch
from registry.hub.transfer_meter import Meter
from registry.hub.wheel_package import WheelFolder
from registry.models.file_digests import check_digest
from registry.models.model_record import Provenance
from registry.models.split_files import read_facts


@dataclass(frozen=True, slots=True)
class Staged:
    """The result of a transfer: complete and verified files, in the download's order."""

    files: list[Path]
    provenance: Provenance


def transfer(
    hub: Hub,
    download: Download,
    folder: Path,
    library: Path,
    meter: Meter,
    room: Callable[[int], None],
    stop: threading.Event,
) -> Staged:
    """Put the files into `folder`. Those that are complete in the folder `library` already are linked, not fetched.

    `room` raises DiskFull when so many bytes more are not free; the hub's files were checked before.
    Raises DownloadDamaged when a digest does not match (the file is deleted, so the next attempt starts over);
    InvalidModelFile; HubUnavailable when another attempt may help; DiskFull; Stopped.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if download.source == PYPI:
            return _from_package(download, folder, meter, room, stop)
        return _from_hub(hub, download, folder, library, meter, stop)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk that holds {folder} is full. Free some space and resume the download.") from error
        raise


def _from_hub(hub: Hub, download: Download, folder: Path, library: Path, meter: Meter, stop: threading.Event) -> Staged:
    targets = [folder / file.name for file in download.files]
    for file, target in zip(download.files, targets, strict=True):
        if not target.exists():
            _link_if_identical(library / file.name, file, target, stop)
        fetch(hub, download.repo, download.commit, file, target, meter.of(file.name), stop)
    meter.verifying = True
    for file, target in zip(download.files, targets, strict=True):
        _verify(target, file.digest, stop)
    read_facts(targets[0])  # a file that a worker cannot load is rejected here
    provenance = Provenance(download.source, download.repo, download.commit, download.licence, download.digests)
    return Staged(targets, provenance)


def _from_package(
    download: Download, folder: Path, meter: Meter, room: Callable[[int], None], stop: threading.Event
) -> Staged:
    package = read_reference(download.reference)
    assert isinstance(package, PackageReference)
    found = fetch_package(package, WheelFolder(folder, meter, stop), room)
    meter.verifying = True
    read_facts(found.path)
    return Staged([found.path], Provenance(PYPI, found.package, found.version, "", {found.path.name: found.digest}))


def bytes_on_disk(download: Download, folder: Path) -> int:
    """Bytes that earlier attempts received."""
    if download.source == PYPI:
        return sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    paths = [path for file in download.files for path in (folder / file.name, folder / f"{file.name}.part")]
    return sum(path.stat().st_size for path in paths if path.exists())


def _link_if_identical(existing: Path, file: RepoFile, target: Path, stop: threading.Event) -> None:
    """Reuse a file of the library with the same digest: a registry may have ended just before it recorded it."""
    with suppress(OSError, DownloadDamaged):
        if existing.stat().st_size == file.size:
            check_digest(existing, file.digest, stop)
            os.link(existing, target)


def _verify(target: Path, digest: str, stop: threading.Event) -> None:
    try:
        check_digest(target, digest, stop)
    except DownloadDamaged:
        target.unlink()
        raise
