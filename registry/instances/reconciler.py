"""What changes among the instances without anyone asking: idle ones go, a model has as many as it should."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from atelier.errors import AtelierError
from registry.instances.instance_pool import Pool
from registry.instances.instance_record import TO_COME, State
from registry.instances.instance_supervisor import Supervisor
from registry.instances.scaling import Grow, Replica, Shrink, Strain, decide, delay_after
from registry.models.model_record import Model, Replicas

LOOK_SECONDS = 1.0
HEALTHY_SECONDS = 60.0  # of being ready, after which earlier failures are forgotten

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Course:
    """What was seen of one model."""

    strain: Strain = field(default_factory=Strain)
    watched: dict[Supervisor, float] = field(default_factory=dict)  # those started here, and since when they are READY
    failures: int = 0  # of those, in a row
    not_before: float = 0.0


class Caretaker:
    """Looks at the pool now and then. Owns what it remembers of each model; the pool does what is to be done."""

    def __init__(self, pool: Pool, models: Callable[[], Sequence[Model]]) -> None:
        self._pool = pool
        self._models = models
        self._courses: dict[str, _Course] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.look(asyncio.get_running_loop().time())
            except Exception:  # nobody would see this task end
                _log.exception("instances_not_looked_after")
            await asyncio.sleep(LOOK_SECONDS)

    def look(self, now: float) -> None:
        """Begin what is due."""
        self._pool.unload_expired(now)
        limits = {model.key: model.replicas for model in self._models() if model.replicas}
        self._courses = {key: self._courses.get(key, _Course()) for key in limits}
        for key, replicas in limits.items():
            self._scale(key, replicas, self._courses[key], now)

    def _scale(self, key: str, limits: Replicas, course: _Course, now: float) -> None:
        self._note_failures(key, course, now)
        seen = [_replica(each) for each in self._pool.replicas_of(key)]
        course.strain = course.strain.after(seen, now)
        match decide(limits.least, limits.most, seen, course.strain, now):
            case Grow(needed) if now >= course.not_before:
                self._grow(key, course, now, needed=needed)
            case Shrink(id):
                _log.info("replica_removed", model=key, instance=id)
                course.strain = Strain()
                self._pool.begin_unload(id)

    def _grow(self, key: str, course: _Course, now: float, *, needed: bool) -> None:
        if self._pool.clear_failed(key):
            return  # at a later look their names are free
        try:
            started = self._pool.start_replica(key, needed=needed)
        except AtelierError as error:
            _log.warning("replica_not_started", model=key, reason=error.message)
            self._put_off(course, now)
            return
        course.watched[started] = now
        course.strain = Strain()
        _log.info("replica_added", model=key, instance=started.plan.instance_id, needed=needed)

    def _note_failures(self, key: str, course: _Course, now: float) -> None:
        """Of all that were started here: several load at the same time, and the first may fail after the last began."""
        for supervisor, since in list(course.watched.items()):
            match supervisor.state:
                case State.FAILED:
                    del course.watched[supervisor]
                    self._put_off(course, now)
                    instance_id = supervisor.plan.instance_id
                    _log.warning("replica_failed", model=key, instance=instance_id, failures=course.failures)
                    if supervisor.plan.extra:
                        self._pool.begin_unload(instance_id)  # nobody asked for it
                case State.STOPPING:
                    del course.watched[supervisor]
                case State.READY if now - since >= HEALTHY_SECONDS:
                    del course.watched[supervisor]
                    course.failures = 0
                case State.READY:
                    pass
                case _:
                    course.watched[supervisor] = now

    @staticmethod
    def _put_off(course: _Course, now: float) -> None:
        course.failures += 1
        course.not_before = now + delay_after(course.failures)


def _replica(supervisor: Supervisor) -> Replica:
    instance = supervisor.instance
    return Replica(
        id=instance.id,
        ready=instance.state is State.READY,
        coming=instance.state in TO_COME,
        active=instance.active,
        queued=instance.queued,
        places=instance.parallel,
        grown=instance.on_demand,
    )
