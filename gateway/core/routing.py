"""Which instance answers a request: `decide`, which is pure, and the dispatcher that performs its decisions."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

from atelier.errors import AtelierError, InvalidRequest, ModelNotFound, Unavailable, WorkerLost
from atelier.metrics import GatewayMetrics
from atelier.names import InstanceName, ModelName, may_mean
from gateway.core.worker_connection import WorkerRefused, Workers, as_reported
from gateway.fleet.registry_client import RegistryClient
from gateway.fleet.snapshot import Instance, InstanceState, Launch, Snapshot
from gateway.fleet.watcher import Watcher

COMING = frozenset({InstanceState.STARTING, InstanceState.LOADING, InstanceState.RESTARTING, InstanceState.STALLED})
CHANGE_SECONDS = 0.5  # longest wait for the registry to notice a death before it is asked again
RESTART_SECONDS = 10.0  # longest wait for another process in a lost one's place

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request needs an instance of. `ttl`, `load`: of an instance loaded for it, see RegistryClient.ensure."""

    target: ModelName | InstanceName
    request_id: str
    draft_model: str | None = None  # the instance must speculate with this one; None: any or none
    ttl: float | None = None
    load: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Serve:
    """This instance can take the call now."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class LoadModel:
    """No instance is loaded: the registry is to start one for this name."""

    name: str


@dataclass(frozen=True, slots=True)
class WaitForLoad:
    """An instance is being loaded: the registry replies when it is ready."""

    name: str


@dataclass(frozen=True, slots=True)
class Reject:
    error: AtelierError


Decision = Serve | LoadModel | WaitForLoad | Reject


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a decision depends on beside the demand and the snapshot."""

    in_flight: Mapping[str, int]  # this gateway's unfinished choices, by instance id
    load_on_demand: bool = True
    registry_connected: bool = True
    lost: Collection[Launch] = ()  # processes that this request was on when they were lost
    turn: int = 0  # counts decisions: equally busy instances take turns
    draft_model: str | None = None  # as the request names it; only instances that speculate with it count


def decide(target: ModelName | InstanceName, snapshot: Snapshot, now: Circumstances) -> Decision:
    """Where a request names a draft model, only instances loaded with it count.

    1. A ready instance serves; of several, the least busy.
    2. Without a registry nothing can be loaded.
    3. An instance that is being loaded is waited for.
    4. Otherwise one is loaded, if requests may load models; an instance that is named may always be.
    """
    candidates = [each for each in _candidates(target, snapshot) if speculates_with(each, now.draft_model)]
    if now.draft_model is not None and not candidates:
        return Reject(_not_loaded_with(now.draft_model, target))
    ready = [each for each in candidates if each.state is InstanceState.READY and each.launch not in now.lost]
    if ready:
        return Serve(least_busy(ready, now.in_flight, now.turn))
    if not now.registry_connected:
        return Reject(Unavailable("The model is not loaded, and the registry, which loads models, does not respond."))
    name = target.key if isinstance(target, ModelName) else target.id
    if any(each.state in COMING or each.launch in now.lost for each in candidates):
        return WaitForLoad(name)
    if now.load_on_demand or isinstance(target, InstanceName):
        return LoadModel(name)
    return Reject(_not_loaded(name))


def on_its_way(target: ModelName | InstanceName, snapshot: Snapshot) -> Instance | None:
    """The instance of the target that is being loaded, once the registry has reported one."""
    return next((each for each in _candidates(target, snapshot) if each.state in COMING), None)


def speculates_with(instance: Instance, draft_model: str | None) -> bool:
    """Whether the instance's draft model is the one of this name. None: any or none will do."""
    own = instance.draft_model
    return draft_model is None or (own is not None and may_mean(draft_model, own))


def least_busy(instances: list[Instance], in_flight: Mapping[str, int], turn: int) -> Instance:
    """The least busy instance; equally busy ones take turns."""
    loads = [busyness(instance, in_flight.get(instance.id, 0)) for instance in instances]
    least = min(loads)
    equals = [instance for instance, load in zip(instances, loads, strict=True) if load == least]
    return equals[turn % len(equals)]


def busyness(instance: Instance, own: int) -> float:
    """Calls per sequence. The reported figures include other gateways' calls, our own are newer: the larger counts."""
    return max(own, instance.active + instance.queued) / max(instance.parallel, 1)


def _candidates(target: ModelName | InstanceName, snapshot: Snapshot) -> list[Instance]:
    """Instances with LoRA adapters answer differently: a key means those only where there are none without."""
    if isinstance(target, ModelName):
        instances = snapshot.instances_of(target.key)
        return [each for each in instances if not each.lora] or instances
    named = snapshot.instances.get(target.id)
    return [named] if named else []


def _not_loaded_with(draft_model: str, target: ModelName | InstanceName) -> InvalidRequest:
    name = target.key if isinstance(target, ModelName) else target.id
    return InvalidRequest(
        f'draft_model: "{name}" is not loaded with the draft model "{draft_model[:200]}". Load it with the load '
        "setting draft_model (atelier load MODEL --draft-model DRAFT), or leave draft_model out of the request.",
        param="draft_model",
    )


def _not_loaded(name: str) -> ModelNotFound:
    return ModelNotFound(
        f'The model "{name}" is not loaded, and requests may not load models here. Load it with: atelier load {name}',
        param="model",
    )


class Dispatcher:
    """Finds an instance for a demand: at once if one is ready, otherwise through the registry."""

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

    async def find(self, demand: Demand, lost: Collection[Launch] = ()) -> tuple[Instance, bool]:
        """A ready instance on none of the lost processes, and whether its load was waited for.

        Raises what `decide` rejects the demand with, and what the load failed with.
        """
        now = asyncio.get_running_loop().time
        end = now() + RESTART_SECONDS
        while True:
            match self._decide(demand.target, lost, demand.draft_model, next(self._turns)):
                case Serve(instance):
                    return instance, False
                case Reject(error):
                    raise error
                case decision:
                    with self._metrics.load_wait():
                        instance = await self._registry.ensure(
                            decision.name, demand.request_id, demand.ttl, demand.load
                        )
            if instance.launch not in lost and speculates_with(instance, demand.draft_model):
                return instance, True
            # The registry has not noticed the loss yet, or another instance of the model is ready than the one with
            # this draft model. Its changes may be about anything: ask again after each, but not for ever.
            if now() > end:
                raise WorkerLost() if instance.launch in lost else Unavailable()
            await self._watcher.change(CHANGE_SECONDS)

    def has_ready(self, target: ModelName | InstanceName, draft_model: str | None = None) -> bool:
        """Whether `find` would return without a load; raises what it would reject. Takes no turn."""
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


class ChosenInstance:
    """The instance that one request runs on. Owned by the request's task.

    unplaced --find--> placed --worker lost, or does not accept calls--> unplaced, once
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        demand: Demand,
        *,
        within: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        on_lost: Callable[[Instance], None] = lambda instance: None,
    ) -> None:
        """`within`: bounds the wait for an instance. `on_lost`: called before another one is looked for."""
        self.instance: Instance | None = None
        self.had_to_load = False  # it waited for its model's load; a lost worker's replacement does not count
        self.final = False  # another instance may no longer take its place
        self._dispatcher = dispatcher
        self._demand = demand
        self._within = within
        self._on_lost = on_lost
        self._lost: set[Launch] = set()

    @property
    def replaced(self) -> bool:
        return bool(self._lost)

    def must_load(self) -> bool:
        """Whether `find` would wait for a load; raises what it would reject."""
        return not self._dispatcher.has_ready(self._demand.target, self._demand.draft_model)

    async def find(self) -> None:
        """Return when an instance is ready. Raises what Dispatcher.find does."""
        async with self._within():
            self.instance, waited = await self._dispatcher.find(self._demand, self._lost)
        self.had_to_load = self.had_to_load or (waited and not self._lost)

    async def run(self, work: Callable[[Instance], Awaitable[T]]) -> T:
        """What the work returns, which is repeated on another instance if its worker is lost or refuses it."""
        while True:
            if self.instance is None or self.instance.launch in self._lost:
                await self.find()
            assert self.instance is not None
            try:
                return await work(self.instance)
            except (WorkerLost, WorkerRefused) as error:
                self.give_up(error)

    def give_up(self, error: WorkerLost | WorkerRefused) -> None:
        """Leave the instance, once; then, or once `final` is set, raises the error as the client should see it."""
        if self.final or self._lost or self.instance is None:
            raise as_reported(error) from None
        self._lost.add(self.instance.launch)
        self._on_lost(self.instance)
