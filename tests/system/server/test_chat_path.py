"""The files that one streamed chat passes, in both processes, are the ones that the documents describe."""

import asyncio
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import RunningGateway, running_gateway, short_directory

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "architecture.md"
SECTION = re.compile(r"^## The way of a streamed chat$(.*?)^## ", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `((?:atelier|gateway|worker)/[\w/]+\.py)` \|", re.MULTILINE)
SOURCES = tuple(f"{ROOT}/{package}/" for package in ("atelier", "gateway", "worker"))


class FileTrace:
    """Notes the source files whose functions are called, on every thread that starts after it."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._recording = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if self._recording and event == "call" and frame.f_code.co_filename.startswith(SOURCES):
            self.files.add(str(Path(frame.f_code.co_filename).relative_to(ROOT)))


@pytest.fixture
def trace() -> Iterator[FileTrace]:
    trace, before = FileTrace(), sys.getprofile()
    sys.setprofile(trace)
    threading.setprofile(trace)
    yield trace
    threading.setprofile(None)  # type: ignore[arg-type]
    sys.setprofile(before)


@pytest.fixture
async def gateway(trace: FileTrace, starter_model: Path) -> AsyncIterator[RunningGateway]:
    """A gateway and a worker with the real model, in this process."""
    with short_directory() as directory:
        registry = FakeRegistry(directory)
        registry.model_file = str(starter_model)
        await registry.start()
        await registry.start_instance(context_length=512, parallel=2, threads=1)
        async with running_gateway(registry) as running:
            yield running
        await registry.stop()


async def test_a_streamed_chat_passes_the_files_that_the_architecture_lists(
    gateway: RunningGateway, trace: FileTrace
) -> None:
    await chat(gateway)  # so that what is done once for a model is done
    with trace.recording():
        await chat(gateway)
        await asyncio.sleep(0)
    described = SECTION.findall(PAGE.read_text())
    assert described, "docs/architecture.md has no section on the way of a streamed chat"
    assert sorted(trace.files) == sorted(ROW.findall(described[0]))


async def chat(gateway: RunningGateway) -> None:
    body: dict[str, Any] = {"model": KEY, "messages": [{"role": "user", "content": "Say hi"}]}
    async with (
        gateway.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body | {"stream": True, "max_tokens": 5}) as reply,
    ):
        assert (await reply.aread()).endswith(b"data: [DONE]\n\n")
