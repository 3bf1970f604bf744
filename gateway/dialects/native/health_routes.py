"""Health checks for load balancers, and metrics for Prometheus."""

from collections.abc import Sequence
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from atelier.errors import Draining, Unavailable
from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission
from gateway.dialects.route import PLAIN, Route
from gateway.fleet.watcher import Watcher


class HealthRoutes:
    tag: ClassVar[str] = "Management"

    def __init__(self, watcher: Watcher, admission: Admission, metrics: GatewayMetrics) -> None:
        self._watcher = watcher
        self._admission = admission
        self._metrics = metrics

    def routes(self) -> Sequence[Route]:
        return (
            Route("GET /healthz", self.alive, "Whether the process is alive", media=PLAIN),
            Route("GET /readyz", self.ready, "Whether the gateway accepts requests", media=PLAIN),
            Route("GET /metrics", self.metrics, "Metrics for Prometheus", media=PLAIN),
        )

    async def alive(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """Fails before the first snapshot of the registry, and while draining."""
        if self._admission.draining:
            raise Draining()
        if not self._watcher.has_snapshot:
            raise Unavailable("The gateway has no snapshot from the registry yet; try again.")
        return PlainTextResponse("ready\n")

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)
