"""Two workers of one file share its weights in memory."""

from pathlib import Path

import pytest

from atelier.settings import Load
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = pytest.mark.system


def weights(name: str) -> list[tuple[int, int]]:
    """(RSS, PSS) in KiB of every process's mapping of the file."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/smaps"):
        try:
            blocks = _blocks(maps.read_text(), name)
        except OSError:
            continue
        if blocks:
            found.append((sum(rss for rss, _ in blocks), sum(pss for _, pss in blocks)))
    return found


def _blocks(text: str, name: str) -> list[tuple[int, int]]:
    found, inside, rss = [], False, 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if "-" in key.split(" ")[0]:
            inside = line.endswith(name)
        elif inside and key == "Rss":
            rss = int(value.split()[0])
        elif inside and key == "Pss":
            found.append((rss, int(value.split()[0])))
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel does not say")
async def test_two_workers_of_one_file_share_its_pages(starter_model: Path, tmp_path: Path) -> None:
    own = tmp_path / "shared.gguf"
    own.symlink_to(starter_model)
    load = Load(context_length=256, parallel=1)
    async with worker_process(tmp_path, own, load) as one, worker_process(tmp_path, own, load) as two:
        for spec in (one, two):
            async with WorkerClient(spec) as client:
                await client.submit(1, "Hello", sampling={"max_tokens": 2})
                await client.finish(1)
        mappings = weights(str(starter_model))
    assert len(mappings) >= 2
    assert sum(pss for _, pss in mappings) < 1.1 * max(rss for rss, _ in mappings)
