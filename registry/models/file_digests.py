"""Digests of model files: computed, and compared with those of their source. Blocks; for threads."""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import DownloadDamaged, InvalidModelFile
from registry.models.model_record import Model
from registry.models.split_files import parts_of, read_facts
from registry.stop_signal import check

PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one file. `expected` is empty if unknown: this registry did not download the file."""

    name: str
    found: str  # "sha256:...", or empty if the file cannot be read
    expected: str
    fault: str = ""  # empty: none


def digest_of(path: Path, kind: str, stop: threading.Event) -> str:
    """`kind`: "sha256", or "git" for git's blob id. Raises OSError; Stopped."""
    if kind == "sha256":
        hashing = hashlib.sha256()
    else:
        hashing = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            check(stop)
            hashing.update(piece)
    return f"{kind}:{hashing.hexdigest()}"


def check_digest(path: Path, digest: str, stop: threading.Event) -> None:
    """Raises DownloadDamaged if the file's digest is another; OSError; Stopped."""
    if (found := digest_of(path, digest.partition(":")[0], stop)) != digest:
        raise DownloadDamaged(f"{path.name} differs from its source: its digest is {found}, not {digest}.")


def verify(model: Model, stop: threading.Event) -> list[Verdict]:
    """A verdict on every part of the model. Raises Stopped."""
    expected = dict(model.provenance.digests) if model.provenance else {}
    verdicts = [_verdict(path, expected.get(path.name, ""), stop) for path in parts_of(model.path)]
    if all(not verdict.fault for verdict in verdicts):
        try:
            read_facts(model.path)
        except (InvalidModelFile, OSError) as error:
            verdicts[0] = Verdict(verdicts[0].name, verdicts[0].found, verdicts[0].expected, str(error))
    return verdicts


def _verdict(path: Path, expected: str, stop: threading.Event) -> Verdict:
    try:
        found = digest_of(path, expected.partition(":")[0] or "sha256", stop)
    except OSError as error:
        return Verdict(path.name, "", expected, f"It cannot be read: {error.strerror or error}.")
    fault = "Its content has changed since it was downloaded." if expected and found != expected else ""
    return Verdict(path.name, found, expected, fault)
