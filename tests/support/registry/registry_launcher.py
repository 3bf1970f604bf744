"""A launcher of scripted workers in the test's own process, behind real gRPC sockets."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atelier.errors import AtelierError, Unavailable, to_message
from atelier.launch import LaunchSpec
from atelier.rpc import Context, create_server, reported_errors
from atelier.settings.settings_table import load_message
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceServicer, add_InferenceServicer_to_server

PULSE_SECONDS = 0.05
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class FakeWorker(InferenceServicer):
    """A worker whose statuses the test decides; it is also the launcher's handle on itself."""

    def __init__(self, spec: LaunchSpec, environment: Mapping[str, str], pid: int) -> None:
        self.spec = spec
        self.environment = dict(environment)
        self.pid = pid
        self.started = f"start of {pid}"
        self.signals: list[signal.Signals] = []
        self.shutdowns: list[float] = []
        self.released: list[int] = []  # bytes of its cache that the registry asked it to free
        self.ignores_shutdown = False
        self.cores: list[int] = []  # the cores that the registry last bound it to
        self.can_be_bound = True
        self._status = pb.WorkerStatus(state=pb.WORKER_LOADING)
        self._silent = False
        self._changed = asyncio.Event()
        self._ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._server = create_server(spec.token)
        self._health = health.aio.HealthServicer()

    async def serve(self) -> None:
        add_InferenceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set("", NOT_SERVING)
        self._server.add_insecure_port(self.spec.address)
        await self._server.start()

    @property
    def lives(self) -> bool:
        return not self._ended.done()

    # What the test decides.

    async def become_ready(self) -> None:
        await self._health.set("", SERVING)
        self.say(state=pb.WORKER_READY, load_progress=1.0, load_seconds=0.5)

    def say(self, **fields: object) -> None:
        for name, value in fields.items():  # a number may become 0, which MergeFrom ignores
            if isinstance(value, int | float):
                setattr(self._status, name, value)
            else:
                self._status.MergeFrom(pb.WorkerStatus(**{name: value}))  # type: ignore[arg-type]
        self._change()

    def work(self, sequences: int) -> None:
        """Report so many running sequences from now on."""
        self._status.active = sequences
        self._status.steps += 1
        self._change()

    def rest(self) -> None:
        """Report no work, and no calls that wait."""
        self._status.active = self._status.queued = 0
        self._change()

    def fail_load(self, error: AtelierError) -> None:
        self.say(state=pb.WORKER_FAILED, error=to_message(error))

    def fall_silent(self, silent: bool = True) -> None:
        self._silent = silent
        self._change()

    async def crash(self, exit_code: int | None) -> None:
        """The process ends, and its socket is removed."""
        if not self._ended.done():
            self._ended.set_result(exit_code)
        await self._server.stop(None)

    # What the registry calls.

    async def Supervise(self, request: pb.SuperviseRequest, context: Context) -> AsyncIterator[pb.WorkerStatus]:
        while True:
            if not self._silent:
                yield self._status
            self._changed.clear()
            try:
                async with asyncio.timeout(PULSE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.WorkerDescription:
        async with reported_errors(context):
            if self._status.state != pb.WORKER_READY:
                raise Unavailable()
        return pb.WorkerDescription(
            instance_id=self.spec.instance_id,
            context_length=self.spec.load.context_length,
            parallel=self.spec.load.parallel,
            gpu_layers=7,
            devices=["CPU"],
            load=load_message(self.spec.load),
        )

    async def Shutdown(self, request: pb.ShutdownRequest, context: Context) -> pb.ShutdownReply:
        self.shutdowns.append(request.grace_seconds)
        if not self.ignores_shutdown:
            asyncio.get_running_loop().call_soon(self._end, 0)
        return pb.ShutdownReply()

    async def ReleaseCache(self, request: pb.ReleaseCacheRequest, context: Context) -> pb.ReleaseCacheReply:
        self.released.append(request.size_bytes)
        freed = min(request.size_bytes, self._status.cache_ram_bytes)
        self.say(cache_ram_bytes=self._status.cache_ram_bytes - freed)
        return pb.ReleaseCacheReply(released_bytes=freed)

    # The launcher's handle.

    async def wait(self) -> int | None:
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        self._end(-number)

    def bind(self, cores: Collection[int]) -> bool:
        if self.can_be_bound:
            self.cores = list(cores)
        return self.can_be_bound

    def log_tail(self) -> str:
        return "a last word"

    def release(self) -> None:
        pass

    async def close(self) -> None:
        self._end(None)
        await self._server.stop(None)

    def _end(self, exit_code: int | None) -> None:
        if not self._ended.done():
            self._ended.set_result(exit_code)

    def _change(self) -> None:
        self._changed.set()


class FakeLauncher:
    """Launches fake workers: ready at once, unless the test sets otherwise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._launched: asyncio.Queue[FakeWorker] = asyncio.Queue()
        self.workers: list[FakeWorker] = []
        self.ready_at_once = True
        self.load_error: AtelierError | None = None
        self.crash_code: int | None = None  # of workers that end before they report anything

    def prepare(self) -> None:
        pass

    def new_address(self) -> str:
        return f"unix:{self._folder}/w{next(self._numbers)}.sock"

    async def launch(self, spec: LaunchSpec, environment: Mapping[str, str]) -> FakeWorker:
        worker = FakeWorker(spec, environment, pid=1000 + len(self.workers))
        self.workers.append(worker)
        await worker.serve()
        if self.crash_code is not None:
            await worker.crash(self.crash_code)
        elif self.load_error is not None:
            worker.fail_load(self.load_error)
        elif self.ready_at_once:
            await worker.become_ready()
        self._launched.put_nowait(worker)
        return worker

    async def find(self, address: str) -> tuple[int, str] | None:
        return next(((each.pid, each.started) for each in self.workers if each.spec.address == address), None)

    async def attach(self, instance_id: str, pid: int, started: str) -> FakeWorker | None:
        return next((each for each in self.workers if each.lives and (each.pid, each.started) == (pid, started)), None)

    def clear(self, address: str) -> None:
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)

    async def next_worker(self) -> FakeWorker:
        """The next worker launched, or the oldest that no caller has taken."""
        async with asyncio.timeout(5):
            return await self._launched.get()

    def clear_all_but(self, addresses: Collection[str]) -> None:
        pass

    async def close(self) -> None:
        for worker in self.workers:
            await worker.close()
