"""Changes to the instances that no request triggers: idle ones are unloaded, replicas added and removed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from atelier.errors import AtelierError
from registry.instances.instance_record import TO_COME, InstanceState
from registry.instances.instance_set import InstanceSet
from registry.instances.instance_supervisor import Supervisor
from registry.instances.scaling import Grow, Pressure, Replica, Shrink, decide, delay_after
from registry.models.model_record import Model, Replicas

INTERVAL_SECONDS = 1.0
HEALTHY_SECONDS = 60.0  # of being ready, after which the failure count starts over

_log = structlog.get_logger(__name__)


class StartReplica(Protocol):
    def __call__(self, key: str, *, needed: bool) -> Supervisor: ...


@dataclass(slots=True)
class _ModelHistory:
    """What was observed of one model."""

    pressure: Pressure = field(default_factory=Pressure)
    watched: dict[Supervisor, float] = field(default_factory=dict)  # started here, and since when READY
    failures: int = 0  # of those, in a row
    not_before: float = 0.0


class Reconciler:
    """Compares the instances with what they should be, at intervals. Owns the history of each model."""

    def __init__(
        self, instances: InstanceSet, start_replica: StartReplica, models: Callable[[], Sequence[Model]]
    ) -> None:
        self._instances = instances
        self._start_replica = start_replica
        self._models = models
        self._histories: dict[str, _ModelHistory] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.reconcile(asyncio.get_running_loop().time())
            except Exception:  # otherwise this task would end unnoticed
                _log.exception("reconciliation_failed")
            await asyncio.sleep(INTERVAL_SECONDS)

    def reconcile(self, now: float) -> None:
        """Start the changes that are due; none is awaited."""
        self._instances.unload_expired(now)
        limits = {model.key: model.replicas for model in self._models() if model.replicas}
        self._histories = {key: self._histories.get(key, _ModelHistory()) for key in limits}
        for key, replicas in limits.items():
            self._scale(key, replicas, self._histories[key], now)

    def _scale(self, key: str, limits: Replicas, history: _ModelHistory, now: float) -> None:
        self._note_failures(key, history, now)
        replicas = [_replica(each) for each in self._instances.replicas_of(key)]
        history.pressure = history.pressure.after(replicas, now)
        match decide(limits.least, limits.most, replicas, history.pressure, now):
            case Grow(needed) if now >= history.not_before:
                self._grow(key, history, now, needed=needed)
            case Shrink(id):
                _log.info("replica_removed", model=key, instance=id)
                history.pressure = Pressure()
                self._instances.begin_unload(id)

    def _grow(self, key: str, history: _ModelHistory, now: float, *, needed: bool) -> None:
        if self._instances.clear_failed(key):
            return  # their names are free at a later interval
        try:
            started = self._start_replica(key, needed=needed)
        except AtelierError as error:
            _log.warning("replica_not_started", model=key, reason=error.message)
            self._back_off(history, now)
            return
        history.watched[started] = now
        history.pressure = Pressure()
        _log.info("replica_added", model=key, instance=started.plan.instance_id, needed=needed)

    def _note_failures(self, key: str, history: _ModelHistory, now: float) -> None:
        """Of all that were started here: several load at once, and the first may fail after the last was started."""
        for supervisor, since in list(history.watched.items()):
            match supervisor.state:
                case InstanceState.FAILED:
                    del history.watched[supervisor]
                    self._back_off(history, now)
                    instance_id = supervisor.plan.instance_id
                    _log.warning("replica_failed", model=key, instance=instance_id, failures=history.failures)
                    if supervisor.plan.extra:
                        self._instances.begin_unload(instance_id)  # no client asked for it
                case InstanceState.STOPPING:
                    del history.watched[supervisor]
                case InstanceState.READY if now - since >= HEALTHY_SECONDS:
                    del history.watched[supervisor]
                    history.failures = 0
                case InstanceState.READY:
                    pass
                case _:
                    history.watched[supervisor] = now

    @staticmethod
    def _back_off(history: _ModelHistory, now: float) -> None:
        history.failures += 1
        history.not_before = now + delay_after(history.failures)


def _replica(supervisor: Supervisor) -> Replica:
    instance = supervisor.instance
    return Replica(
        id=instance.id,
        ready=instance.state is InstanceState.READY,
        loading=instance.state in TO_COME,
        active=instance.active,
        queued=instance.queued,
        parallel=instance.parallel,
        on_demand=instance.on_demand,
    )
