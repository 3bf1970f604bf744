"""The instances there are: found, named, listed, unloaded."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress

import structlog

from atelier.errors import AlreadyExists, AtelierError, Conflict, Draining, InstanceNotFound
from atelier.names import numbered_id
from registry.feed import Feed
from registry.instances.instance_record import Instance, InstanceState
from registry.instances.instance_store import InstanceStore
from registry.instances.instance_supervisor import Supervisor
from registry.models.model_catalogue import ModelCatalogue
from registry.models.model_record import Model

KILL_AFTER_SECONDS = 10.0  # past the grace period of a drain

# Best first. A stalled instance is waited for rather than doubled: a second copy of a model that does not
# respond would only take the memory that the first one needs.
PREFERENCE = (
    InstanceState.READY,
    InstanceState.LOADING,
    InstanceState.STARTING,
    InstanceState.RESTARTING,
    InstanceState.STALLED,
    InstanceState.STOPPING,
    InstanceState.FAILED,
)

_log = structlog.get_logger(__name__)


def preferred_instance(instances: Iterable[Instance]) -> Instance | None:
    """The instance to use, wait for, or (if it failed) replace; None if there is none. Pure.

    Adapters make a different model of it: an instance with some is preferred only where there is none without.
    """
    return min(
        instances, key=lambda instance: (bool(instance.load.lora), PREFERENCE.index(instance.state)), default=None
    )


class InstanceSet:
    """Owns the supervisors, by instance id, and the removals in progress. Used on the event loop only."""

    def __init__(self, catalogue: ModelCatalogue, store: InstanceStore, feed: Feed, shutdown_grace: float) -> None:
        """`shutdown_grace`: seconds that running requests get, unless the caller gives another number."""
        self._catalogue = catalogue
        self._store = store
        self._feed = feed
        self._shutdown_grace = shutdown_grace
        self._supervisors: dict[str, Supervisor] = {}
        self._removals: dict[Supervisor, asyncio.Task[None]] = {}
        self._draining = False

    def __iter__(self) -> Iterator[Supervisor]:
        """The oldest first. A copy: callers await between two of them."""
        return iter(list(self._supervisors.values()))

    def ids(self) -> list[str]:
        return list(self._supervisors)

    def get(self, instance_id: str) -> Supervisor | None:
        return self._supervisors.get(instance_id)

    def find(self, name: str) -> Supervisor | None:
        """The instance of this id, or the preferred one of the model of this key."""
        if self._catalogue.get(name) is None:
            return self._supervisors.get(name)
        preferred = preferred_instance(each.instance for each in self if each.plan.model.key == name)
        return self._supervisors[preferred.id] if preferred else None

    def addresses(self) -> set[str]:
        """Where the workers of all instances listen."""
        return {each.instance.address for each in self}

    def ids_on(self, device: str) -> list[str]:
        """The ids of those that take memory on the device."""
        return sorted(
            each.plan.instance_id
            for each in self
            if device in each.plan.placed and each.state is not InstanceState.FAILED
        )

    def replicas_of(self, key: str) -> list[Supervisor]:
        """The model's instances that are loaded or loading, the oldest first; those with adapters do not count."""
        return [
            each
            for each in self
            if each.plan.model.key == key
            and not each.plan.load.lora
            and each.state not in (InstanceState.FAILED, InstanceState.STOPPING)
            and each not in self._removals
        ]

    def is_kept_replica(self, supervisor: Supervisor) -> bool:
        """Whether it is among the oldest that its model's least number of replicas keeps loaded."""
        model = self._catalogue.get(supervisor.plan.model.key)
        if model is None or model.replicas is None:
            return False
        return supervisor in self.replicas_of(model.key)[: model.replicas.least]

    def is_leaving(self, supervisor: Supervisor) -> bool:
        return supervisor in self._removals

    def check_unused(self, model: Model) -> None:
        """Raises Conflict while an instance has the model loaded, also as its draft model."""
        users = [each.plan.instance_id for each in self if model.key in each.plan.model_keys]
        if users:
            reloads = model.replicas is not None and model.replicas.least > 0
            first = f", after atelier scale {model.key} --off, or it is loaded again" if reloads else " first"
            raise Conflict(f"{model.key} is loaded, as {', '.join(users)}: unload that{first}.", param="key")

    def new_id(self, model: Model, identifier: str | None = None) -> str:
        """The id of a new instance. Raises AlreadyExists if the requested one means something else."""
        if identifier is None:
            return numbered_id(model.key, self._supervisors)
        if identifier in self._supervisors:
            raise AlreadyExists(f'An instance "{identifier}" already exists.', param="identifier")
        if identifier != model.key and self._catalogue.get(identifier):
            raise AlreadyExists(f'"{identifier}" is the key of another model.', param="identifier")
        return identifier

    def check_open(self) -> None:
        """Raises Draining once the server shuts down."""
        if self._draining:
            raise Draining()

    def add(self, supervisor: Supervisor) -> None:
        self._supervisors[supervisor.plan.instance_id] = supervisor

    async def unload(self, instance_id: str, grace_seconds: float | None) -> None:
        """End an instance; its running requests get the grace period. Raises InstanceNotFound."""
        supervisor = self._supervisors.get(instance_id)
        if supervisor is None:
            raise InstanceNotFound(f'There is no loaded instance "{instance_id[:200]}".', param="instance_id")
        await self.remove(supervisor, self._shutdown_grace if grace_seconds is None else grace_seconds)

    def begin_unload(self, instance_id: str) -> None:
        """Unload an instance, if it still exists, without waiting for that."""
        supervisor = self._supervisors.get(instance_id)
        if supervisor is not None and supervisor not in self._removals:
            self._begin_removal(supervisor, self._shutdown_grace)

    def unload_expired(self, now: float) -> None:
        """Begin to unload the instances that have been idle for as long as they may be."""
        for supervisor in self:
            if supervisor.worker.expired(now) and not (self.is_leaving(supervisor) or self.is_kept_replica(supervisor)):
                _log.info("instance_idle", instance=supervisor.plan.instance_id, ttl=supervisor.plan.ttl)
                self.begin_unload(supervisor.plan.instance_id)

    def clear_failed(self, key: str) -> bool:
        """Begin to remove the model's failed instances, unless an operator loaded them.

        Returns whether some still occupy their names.
        """
        failed = [each for each in self if each.plan.model.key == key and each.given_up and each.plan.on_demand]
        for supervisor in failed:
            self.begin_unload(supervisor.plan.instance_id)
        return bool(failed)

    async def evict(self, supervisor: Supervisor) -> None:
        """Unload it, with the usual grace period."""
        await self.remove(supervisor, self._shutdown_grace)

    async def remove(self, supervisor: Supervisor, grace_seconds: float = 0.0) -> None:
        """Stop the worker and forget the instance: once, however many callers wait or stop waiting."""
        await asyncio.shield(self._removals.get(supervisor) or self._begin_removal(supervisor, grace_seconds))

    async def drain(self, grace_seconds: float) -> None:
        """Unload everything, and let nothing more start."""
        self._draining = True
        stops = [asyncio.create_task(self.remove(each, grace_seconds)) for each in self]
        if not stops:
            return
        _, late = await asyncio.wait(stops, timeout=grace_seconds + KILL_AFTER_SECONDS)
        for supervisor in self if late else ():
            supervisor.kill()
        await asyncio.gather(*stops, return_exceptions=True)

    def _begin_removal(self, supervisor: Supervisor, grace_seconds: float) -> asyncio.Task[None]:
        task = self._removals[supervisor] = asyncio.create_task(self._stop_and_forget(supervisor, grace_seconds))
        task.add_done_callback(lambda _: self._removals.pop(supervisor, None))
        return task

    async def _stop_and_forget(self, supervisor: Supervisor, grace_seconds: float) -> None:
        instance_id = supervisor.plan.instance_id
        if not self._draining:
            await self._store.remove(instance_id)  # first: if this fails, nothing has changed
        await supervisor.stop(grace_seconds)
        with suppress(AtelierError):  # again: the supervisor may have written its row meanwhile
            await self._store.remove(instance_id)
        if self._supervisors.get(instance_id) is supervisor:
            del self._supervisors[instance_id]
            self._feed.remove_instance(instance_id)
