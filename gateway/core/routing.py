"""Which instance answers. Pure: a name and a snapshot in, a decision out; the dispatcher performs it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from atelier.errors import AtelierError, InvalidRequest, ModelNotFound, Unavailable
from atelier.names import InstanceName, ModelName, may_mean
from gateway.fleet.snapshot import Instance, Launch, Snapshot, State

COMING = frozenset({State.STARTING, State.LOADING, State.RESTARTING, State.STALLED})


@dataclass(frozen=True, slots=True)
class Serve:
    """This instance can take the call now."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Load:
    """None is loaded: the registry shall start one for this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """One is on its way: the registry tells when it is ready."""

    name: str


@dataclass(frozen=True, slots=True)
class Reject:
    error: AtelierError


Decision = Serve | Load | Wait | Reject


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What beside the snapshot a decision rests on."""

    in_flight: Mapping[str, int]  # this gateway's own choices in work, by instance id
    load_on_demand: bool = True
    registry_connected: bool = True
    lost: Collection[Launch] = ()  # processes that this request has seen die
    turn: int = 0  # counts decisions: equals take turns
    draft_model: str | None = None  # as the request names it: this one shall guess, and no other


def decide(target: ModelName | InstanceName, snapshot: Snapshot, now: Circumstances) -> Decision:
    """Of a request that names a draft model, only instances that were loaded with it count.

    1. An instance that is ready serves; of several, the least busy.
    2. Without a registry nothing can be loaded.
    3. One that is on its way is waited for.
    4. Otherwise one is loaded, if a request may do that; an instance that was named may be always.
    """
    candidates = [each for each in _candidates(target, snapshot) if guesses_with(each, now.draft_model)]
    if now.draft_model is not None and not candidates:
        return Reject(_not_loaded_with(now.draft_model, target))
    ready = [each for each in candidates if each.state is State.READY and each.launch not in now.lost]
    if ready:
        return Serve(least_busy(ready, now.in_flight, now.turn))
    if not now.registry_connected:
        return Reject(Unavailable("The model is not loaded, and the registry, which could load it, does not answer."))
    name = target.key if isinstance(target, ModelName) else target.id
    if any(each.state in COMING or each.launch in now.lost for each in candidates):
        return Wait(name)
    if now.load_on_demand or isinstance(target, InstanceName):
        return Load(name)
    return Reject(_not_loaded(name))


def on_its_way(target: ModelName | InstanceName, snapshot: Snapshot) -> Instance | None:
    """The instance that whoever waits for the target waits for, once the registry tells of one."""
    return next((each for each in _candidates(target, snapshot) if each.state in COMING), None)


def guesses_with(instance: Instance, draft_model: str | None) -> bool:
    """Whether the instance's draft model is the one of this name; None: any or none will do."""
    own = instance.load.get("draft_model")
    return draft_model is None or (own is not None and may_mean(draft_model, own))


def least_busy(instances: list[Instance], in_flight: Mapping[str, int], turn: int) -> Instance:
    """The instance with the most room; those with as much of it take turns."""
    loads = [busyness(instance, in_flight.get(instance.id, 0)) for instance in instances]
    least = min(loads)
    equals = [instance for instance, load in zip(instances, loads, strict=True) if load == least]
    return equals[turn % len(equals)]


def busyness(instance: Instance, own: int) -> float:
    """Calls per sequence. The reported figures hold other gateways' calls, ours are newer: the larger counts."""
    return max(own, instance.active + instance.queued) / max(instance.parallel, 1)


def _candidates(target: ModelName | InstanceName, snapshot: Snapshot) -> list[Instance]:
    """Adapters make another model of it: a key means the instances with some only where there are none without."""
    if isinstance(target, ModelName):
        instances = snapshot.instances_of(target.key)
        return [each for each in instances if not each.load.get("lora")] or instances
    named = snapshot.instances.get(target.id)
    return [named] if named else []


def _not_loaded_with(draft_model: str, target: ModelName | InstanceName) -> InvalidRequest:
    name = target.key if isinstance(target, ModelName) else target.id
    return InvalidRequest(
        f'draft_model: "{name}" is not loaded with the draft model "{draft_model[:200]}". Load it so, with the load '
        "setting draft_model (atelier load MODEL --draft-model DRAFT), or leave draft_model out of the request.",
        param="draft_model",
    )


def _not_loaded(name: str) -> ModelNotFound:
    return ModelNotFound(
        f'The model "{name}" is not loaded, and requests do not load models here. Load it with: atelier load {name}',
        param="model",
    )
