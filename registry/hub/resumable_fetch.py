"""Fetches one file from the hub, resuming where an earlier attempt ended. Blocks; for threads."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from atelier.errors import DownloadDamaged, HubUnavailable
from registry.hub.hub_client import Hub, Location, explained, refusal
from registry.hub.hub_listing import RepoFile
from registry.stop_signal import check

SILENCE_SECONDS = 30.0  # without a byte, after which the connection is closed


def fetch(
    hub: Hub,
    repo: str,
    commit: str,
    file: RepoFile,
    target: Path,
    on_bytes: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Fetch the file to `target`, unless it exists; the caller verifies its content.

    `on_bytes` gets the number of bytes on disk: first of earlier attempts, then after each piece. An incomplete file
    stays at `target`.part. Raises HubUnavailable when another attempt may help; DownloadDamaged; Stopped; OSError.
    """
    if target.exists():
        on_bytes(target.stat().st_size)
        return
    location = hub.locate(repo, commit, file.path)
    if location.size != file.size:
        raise DownloadDamaged(f"{file.path}: the hub announced {file.size} bytes and now has {location.size}.")
    part = target.with_name(f"{target.name}.part")
    begun = bytes_to_keep(part, location.etag, file.size)
    on_bytes(begun)
    with part.open("r+b") as unfinished:
        unfinished.truncate(begun)
        unfinished.seek(begun)
        _receive(location, file, begun, unfinished, on_bytes, stop)
        unfinished.flush()
        os.fsync(unfinished.fileno())
    part.rename(target)


def bytes_to_keep(part: Path, etag: str, size: int) -> int:
    """Bytes of an earlier attempt at the same content, by its ETag; starts a new `part` if there is none.

    The ETag is written before the first byte, so a resumed file never mixes two versions.
    """
    note = part.with_name(f"{part.name}.etag")
    if part.exists() and note.exists() and note.read_text() == etag and part.stat().st_size <= size:
        return part.stat().st_size
    part.unlink(missing_ok=True)
    note.write_text(etag)
    part.touch()
    return 0


def _receive(
    location: Location,
    file: RepoFile,
    begun: int,
    unfinished: BinaryIO,
    on_bytes: Callable[[int], None],
    stop: threading.Event,
) -> None:
    from huggingface_hub import get_session

    received = begun
    ranged = {"Range": f"bytes={begun}-"} if begun else {}
    if begun == file.size:
        return
    with (
        explained(file.path),
        get_session().stream(
            "GET",
            location.url,
            headers={**location.headers, **ranged},
            timeout=SILENCE_SECONDS,
            follow_redirects=True,
        ) as response,
    ):
        if response.status_code == 200 and begun:  # the server ignored the range
            unfinished.seek(0)
            unfinished.truncate()
            received = 0
        elif response.status_code not in (200, 206):
            raise refusal(file.path, response.status_code)
        for piece in response.iter_raw():
            check(stop)
            received += len(piece)
            if received > file.size:
                raise DownloadDamaged(f"{file.path}: the hub sends more than the {file.size} bytes that it announced.")
            unfinished.write(piece)
            on_bytes(received)
    if received < file.size:
        raise HubUnavailable(f"{file.path}: the hub ended the transfer after {received} of {file.size} bytes.")
