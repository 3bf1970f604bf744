"""A gateway as a process of its own, before a scripted worker that is another; the registry is the measurement's."""

import asyncio
import os
import secrets
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atelier.launch import LaunchSpec, write_spec
from atelier.rpc import open_channel
from atelier.settings.groups import Load
from atelier.settings.settings_table import load_message
from protos import registry_pb2 as pb
from protos.inference_pb2 import WORKER_READY
from tests.bench.exchange import exchange
from tests.bench.gateway.child import child
from tests.bench.servers.peer import free_port
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, fake_registry
from tests.support.worker.worker_process import supervise

START_SECONDS = 60.0
POLL_SECONDS = 0.05
MOST_QUEUED = 1024


@dataclass(frozen=True, slots=True)
class Stage:
    port: int
    gateway: int  # pid
    worker: int  # pid
    spec: LaunchSpec


@asynccontextmanager
async def stage(streams: int, tokens: int, step_seconds: float) -> AsyncIterator[Stage]:
    """All of it, ready for so many streams of so many tokens; nothing of it is left afterwards."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atl")))
        spec = scripted_spec(directory, streams, tokens, step_seconds)
        registry = await stack.enter_async_context(fake_registry(directory))
        worker = await stack.enter_async_context(_worker(directory, spec))
        registry.set_instance(instance(spec))
        port, gateway = await stack.enter_async_context(_gateway(directory, registry))
        yield Stage(port, gateway, worker, spec)


def scripted_spec(directory: Path, streams: int, tokens: int, step_seconds: float) -> LaunchSpec:
    return LaunchSpec(
        instance_id=KEY,
        engine="scripted",
        model_path="",
        load=Load(parallel=streams),
        address=f"unix:{directory / 'worker.sock'}",
        token=secrets.token_hex(16),
        grace_seconds=600,
        script={"text": " word" * tokens, "step_seconds": step_seconds},
    )


def instance(spec: LaunchSpec) -> pb.Instance:
    return pb.Instance(
        id=spec.instance_id,
        model_key=KEY,
        state=pb.READY,
        address=spec.address,
        token=spec.token,
        load=load_message(spec.load),
        context_length=spec.load.context_length,
        parallel=spec.load.parallel,
    )


@asynccontextmanager
async def _worker(directory: Path, spec: LaunchSpec) -> AsyncIterator[int]:
    path = directory / "spec.json"
    write_spec(spec, path)
    async with _process(directory, "worker", "--spec", str(path)) as pid, open_channel(spec.address) as channel:
        async with asyncio.timeout(START_SECONDS):
            async for status in supervise(channel, spec):
                if status.state == WORKER_READY:
                    break
        yield pid


@asynccontextmanager
async def _gateway(directory: Path, registry: FakeRegistry) -> AsyncIterator[tuple[int, int]]:
    port = free_port()
    settings = {"registry_address": registry.target, "port": port, "max_queued": MOST_QUEUED}
    async with _process(directory, "gateway", **settings) as pid:
        async with asyncio.timeout(START_SECONDS):
            while not await _is_ready(port):  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(POLL_SECONDS)
        yield port, pid


async def _is_ready(port: int) -> bool:
    try:
        return (await exchange(port, "/readyz")).status == 200
    except OSError:
        return False


@asynccontextmanager
async def _process(directory: Path, module: str, *arguments: str, **settings: object) -> AsyncIterator[int]:
    """`python -m MODULE`. Its log is a file: an unread pipe would block it."""
    own = {f"ATELIER_{name.upper()}": str(value) for name, value in {"home": directory, **settings}.items()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    with (directory / f"{module}.out").open("wb") as log:
        command = (sys.executable, "-m", module, *arguments)
        async with child(*command, stdin=DEVNULL, stdout=log, stderr=log, env={**environment, **own}) as process:
            yield process.pid
