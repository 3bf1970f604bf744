"""One file from the hub to the disk, gone on with where an earlier attempt ended. Blocks; for threads."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from atelier.errors import DownloadDamaged, HubUnavailable
from registry.hub.hub_client import Hub, Location, explained, refusal
from registry.hub.hub_listing import RepoFile
from registry.hub.stop_signal import check

SILENCE_SECONDS = 30.0  # without a byte, after which a connection is given up


def fetch(
    hub: Hub,
    repo: str,
    commit: str,
    file: RepoFile,
    target: Path,
    on_bytes: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Bring the file to `target`, unless it is there; its content is checked by the caller.

    `on_bytes` hears how many of its bytes are there: first those that were, then each piece. HubUnavailable when
    another attempt may help; Stopped; OSError. What has come stays in `target`.part.
    """
    if target.exists():
        on_bytes(target.stat().st_size)
        return
    location = hub.locate(repo, commit, file.path)
    if location.size != file.size:
        raise DownloadDamaged(f"{file.path}: the hub promised {file.size} bytes and now has {location.size}.")
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
    """How much of an earlier attempt is of this very content; begins a new one if there is none.

    The note of what is being fetched is written before its first byte.
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

    there = begun
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
        if response.status_code == 200 and begun:  # it begins anew, whatever was asked
            unfinished.seek(0)
            unfinished.truncate()
            there = 0
        elif response.status_code not in (200, 206):
            raise refusal(file.path, response.status_code)
        for piece in response.iter_raw():
            check(stop)
            there += len(piece)
            if there > file.size:
                raise DownloadDamaged(f"{file.path}: the hub sends more than the {file.size} bytes that it promised.")
            unfinished.write(piece)
            on_bytes(there)
    if there < file.size:
        raise HubUnavailable(f"{file.path}: the hub ended the transfer after {there} of {file.size} bytes.")
