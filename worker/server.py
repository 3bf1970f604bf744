"""A worker's life: it serves while the model loads, becomes ready, drains, and ends."""

import asyncio
import contextlib
import time
from pathlib import Path

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from atelier.errors import AtelierError, LoadFailed
from atelier.launch import LaunchSpec
from atelier.rpc import create_server
from protos.inference_pb2_grpc import add_InferenceServicer_to_server
from worker.engine import create_engine
from worker.generate_streams import GenerateStreams
from worker.servicer import InferenceServicer
from worker.worker_status import Activity, Status

SERVICE = "atelier.v1.Inference"
FAILED_LINGER_SECONDS = 10.0  # for the registry to read the reason

_log = structlog.get_logger(__name__)


class WorkerServer:
    """One model instance behind a gRPC server. Owns the engine."""

    def __init__(self, spec: LaunchSpec) -> None:
        self._spec = spec
        self._activity = Activity()
        self._streams = GenerateStreams(self._activity)
        self.engine = create_engine(spec, self._streams.publish)
        self.status = Status(self.engine, self._activity)
        self._health = health.aio.HealthServicer()
        self._servicer = InferenceServicer(
            spec, self.engine, self.status, self._streams, self._activity, self._request_shutdown
        )
        self._server = create_server(spec.token)
        self._shutdown: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._load_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and start loading the model."""
        add_InferenceServicer_to_server(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._set_serving(False)
        self._server.add_insecure_port(self._spec.address)
        await self._server.start()
        self._load_task = asyncio.create_task(self._load())

    async def wait_ready(self) -> None:
        """Wait until the model is loaded. Raises LoadFailed when it cannot be."""
        assert self._load_task is not None
        await asyncio.shield(self._load_task)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until a signal or the registry stops it, loading fails, or neither a registry nor calls need it."""
        signalled = asyncio.create_task(stop.wait())
        orphaned = asyncio.create_task(self._lease_ended())
        failed = asyncio.create_task(self._failed_and_read())
        await asyncio.wait((signalled, orphaned, failed, self._shutdown), return_when=asyncio.FIRST_COMPLETED)
        grace = self._shutdown.result() if self._shutdown.done() else 0.0
        for task in (signalled, orphaned, failed):
            task.cancel()
        await self.stop(grace)

    async def stop(self, grace_seconds: float) -> None:
        """Reject new calls, let those in progress finish within the grace period, and free the model."""
        self.status.draining()
        await self._set_serving(False)
        await self._finish_running(grace_seconds)
        if self._load_task is not None:
            self._load_task.cancel()
        await self.engine.close()
        self._streams.end()
        self.status.ended()
        await self._server.stop(grace=1.0)
        self._remove_socket()
        _log.info("worker_stopped")

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            self._servicer.description = await self.engine.load(self.status.progress)
        except AtelierError as error:
            self._load_failed(error)
            raise
        except Exception as error:
            _log.exception("load_failed")
            self._load_failed(LoadFailed(f"The model could not be loaded: {error}"))
            raise
        seconds = time.monotonic() - started
        await self._set_serving(True)
        self.status.ready(seconds)
        _log.info("worker_ready", load_s=round(seconds, 3))

    def _load_failed(self, error: AtelierError) -> None:
        _log.error("load_failed", reason=error.message)
        self.status.failed(error)

    async def _failed_and_read(self) -> None:
        """Returns some time after the load failed, in which the registry can read the reason; never if it succeeded."""
        assert self._load_task is not None
        await asyncio.wait([self._load_task])
        if self._load_task.exception() is None:
            await asyncio.Event().wait()
        await asyncio.sleep(FAILED_LINGER_SECONDS)

    async def _lease_ended(self) -> None:
        remaining = self._spec.grace_seconds
        while remaining > 0:
            await asyncio.sleep(remaining)
            remaining = self._spec.grace_seconds - self._unneeded_seconds()
        _log.warning("worker_orphaned", grace_s=self._spec.grace_seconds)

    def _unneeded_seconds(self) -> float:
        """The time since a registry last supervised this worker or a call last ended, whichever is later."""
        return min(self.status.unsupervised_seconds, self._activity.idle_seconds)

    async def _finish_running(self, grace_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._activity.idle(), grace_seconds)

    def _remove_socket(self) -> None:
        if self._spec.address.startswith("unix:"):
            with contextlib.suppress(FileNotFoundError):
                Path(self._spec.address.removeprefix("unix:")).unlink()

    async def _set_serving(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, state)

    def _request_shutdown(self, grace_seconds: float) -> None:
        if not self._shutdown.done():
            self._shutdown.set_result(grace_seconds)
