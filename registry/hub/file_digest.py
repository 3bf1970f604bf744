"""Whether a file is the one that the hub means. Blocks; for threads."""

import hashlib
import threading
from pathlib import Path

from atelier.errors import DownloadDamaged
from registry.hub.stop_signal import check

PIECE_BYTES = 8 * 2**20


def check_digest(path: Path, digest: str, stop: threading.Event) -> None:
    """DownloadDamaged when the file's content is another than the digest's; Stopped when told to."""
    if (found := digest_of(path, digest.partition(":")[0], stop)) != digest:
        raise DownloadDamaged(f"{path.name} is not what its source says: its digest is {found}, not {digest}.")


def digest_of(path: Path, kind: str, stop: threading.Event) -> str:
    """`kind`: "sha256", or "git", which is how git names a file's content."""
    if kind == "sha256":
        hashing = hashlib.sha256()
    else:
        hashing = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            check(stop)
            hashing.update(piece)
    return f"{kind}:{hashing.hexdigest()}"
