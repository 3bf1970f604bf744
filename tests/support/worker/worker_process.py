"""A real worker process, for tests of the engine with a real model."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from atelier.launch import LaunchSpec, write_spec
from atelier.lora_adapters import Adapter
from atelier.rpc import open_channel, token_metadata
from atelier.settings import Load
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceStub

LOAD_SECONDS = 120.0
Statuses = Any  # a grpc.aio.UnaryStreamCall of WorkerStatus; generic in the stubs alone


@asynccontextmanager
async def worker_process(
    directory: Path,
    model: Path,
    load: Load,
    draft: Path | None = None,
    adapters: Sequence[Adapter] = (),
    projector: Path | None = None,
) -> AsyncIterator[LaunchSpec]:
    """`python -m worker` with the model loaded; killed at the end if it does not stop by itself."""
    spec = LaunchSpec(
        instance_id="test/model",
        engine="llama",
        model_path=str(model),
        projector_path=str(projector) if projector else None,
        draft_model_path=str(draft) if draft else None,
        load=load,
        address=f"unix:{directory}/worker-{secrets.token_hex(4)}.sock",
        token=secrets.token_hex(16),
        grace_seconds=60,
        cache_dir=str(directory / "cache"),
        adapters=list(adapters),
    )
    path = directory / f"{secrets.token_hex(4)}.json"
    write_spec(spec, path)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "worker", "--spec", str(path))
    try:
        async with open_channel(spec.address) as channel, asyncio.timeout(LOAD_SECONDS) as patience:
            statuses = supervise(channel, spec)
            await _ready(statuses)
            patience.reschedule(None)
            yield spec
            statuses.cancel()
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


def supervise(channel: grpc.aio.Channel, spec: LaunchSpec) -> Statuses:
    """The stream that a registry holds open for as long as it needs the worker."""
    request = pb.SuperviseRequest(instance_id=spec.instance_id)
    return InferenceStub(channel).Supervise(request, metadata=token_metadata(spec.token), wait_for_ready=True)


async def _ready(statuses: Statuses) -> None:
    async for status in statuses:
        if status.state == pb.WORKER_READY:
            return
        if status.state == pb.WORKER_FAILED:
            raise RuntimeError(status.error.message)
