"""Performs what `routing.decide` decides."""

import asyncio
import itertools
from collections.abc import Collection, Mapping
from typing import Any

from atelier.errors import Unavailable, WorkerLost
from atelier.metrics import GatewayMetrics
from atelier.names import InstanceName, ModelName
from gateway.core.routing import Circumstances, Decision, Reject, Serve, decide, guesses_with
from gateway.core.workers import Workers
from gateway.fleet.registry_client import NO_SETTINGS, RegistryClient
from gateway.fleet.snapshot import Instance, Launch
from gateway.fleet.watcher import Watcher

CHANGE_SECONDS = 0.5  # longest wait for the registry to notice a death before it is asked again
RESTART_SECONDS = 10.0  # longest wait for another process in a lost one's place


class Dispatcher:
    """Finds an instance for a request: at once if one is ready, otherwise through the registry."""

    def __init__(
        self,
        watcher: Watcher,
        registry: RegistryClient,
        workers: Workers,
        metrics: GatewayMetrics,
        *,
        load_on_demand: bool,
    ) -> None:
        self._watcher = watcher
        self._registry = registry
        self._workers = workers
        self._metrics = metrics
        self._load_on_demand = load_on_demand
        self._turns = itertools.count()

    async def find(
        self,
        target: ModelName | InstanceName,
        request_id: str,
        lost: Collection[Launch] = (),
        draft_model: str | None = None,
        ttl: float | None = None,
        load: Mapping[str, Any] = NO_SETTINGS,
    ) -> Instance:
        """A ready instance that is none of the lost processes; raises what stands against it.

        `draft_model`: the instance's shall be this one. `ttl`, `load`: see RegistryClient.ensure.
        """
        now = asyncio.get_running_loop().time
        end = now() + RESTART_SECONDS
        while True:
            match self._decide(target, lost, draft_model, next(self._turns)):
                case Serve(instance):
                    return instance
                case Reject(error):
                    raise error
                case decision:
                    instance = await self._ensure(decision.name, request_id, ttl, load)
            if instance.launch not in lost and guesses_with(instance, draft_model):
                return instance
            # The registry has not noticed yet what this request has seen, or has another instance of the model
            # ready than the one that has this draft model. Its changes are of other things too.
            if now() > end:
                raise WorkerLost() if instance.launch in lost else Unavailable()
            await self._watcher.change(CHANGE_SECONDS)

    def has_ready(self, target: ModelName | InstanceName, draft_model: str | None = None) -> bool:
        """Whether `find` returns without a load; raises what it would reject. Takes nobody's turn."""
        match self._decide(target, (), draft_model, turn=0):
            case Reject(error):
                raise error
            case decision:
                return isinstance(decision, Serve)

    def _decide(
        self, target: ModelName | InstanceName, lost: Collection[Launch], draft_model: str | None, turn: int
    ) -> Decision:
        now = Circumstances(
            in_flight=self._workers.in_flight(),
            load_on_demand=self._load_on_demand,
            registry_connected=self._watcher.connected,
            lost=lost,
            turn=turn,
            draft_model=draft_model,
        )
        return decide(target, self._watcher.snapshot, now)

    async def _ensure(self, name: str, request_id: str, ttl: float | None, load: Mapping[str, Any]) -> Instance:
        with self._metrics.load_wait():
            return await self._registry.ensure(name, request_id, ttl, load)
