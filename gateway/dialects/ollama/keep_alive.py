"""Loading and unloading on request, and `keep_alive`: how long a model stays loaded, in seconds or Go's durations."""

import contextlib
import re

from atelier.errors import InstanceNotFound, InvalidRequest
from atelier.names import InstanceName, ModelName
from gateway.core.routing import Demand, Dispatcher
from gateway.dialects.body import LONGEST_TTL
from gateway.fleet.control import Control
from gateway.fleet.snapshot import LOADED, Instance
from gateway.fleet.watcher import Watcher

UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
DURATION = re.compile(rf"([+-]?)(0|(?:{PART.pattern})+)")

FOREVER = -1.0
# With keep_alive 0 the model is unloaded after the reply, but not before the request reaches the loaded instance.
LEAST_SECONDS = 1.0


class ModelLoader:
    """Loads and unloads models for requests without a prompt."""

    def __init__(self, watcher: Watcher, dispatcher: Dispatcher, control: Control) -> None:
        self._watcher = watcher
        self._dispatcher = dispatcher
        self._control = control

    async def load(self, target: ModelName | InstanceName, request_id: str, ttl: float | None) -> Instance:
        """A ready instance, loaded if necessary, which is also in the watcher's snapshot."""
        instance, _ = await self._dispatcher.find(Demand(target, request_id, ttl=ttl))
        await self._watcher.wait_for(lambda: self._is_loaded(instance.id))
        return instance

    async def unload(self, target: ModelName | InstanceName) -> None:
        """The named instance, or all instances of the model, after their requests in flight."""
        snapshot = self._watcher.snapshot
        ids = [target.id] if isinstance(target, InstanceName) else [i.id for i in snapshot.instances_of(target.key)]
        for instance_id in ids:
            with contextlib.suppress(InstanceNotFound):  # it was unloaded meanwhile
                await self._control.unload(instance_id)

    def _is_loaded(self, instance_id: str) -> bool:
        instance = self._watcher.snapshot.instances.get(instance_id)
        return instance is not None and instance.state in LOADED


def idle_seconds(keep_alive: float | str | None) -> float | None:
    """The core's `ttl`: idle seconds until unload; negative for never, None for the default."""
    if keep_alive is None:
        return None
    seconds = _seconds(keep_alive)
    return FOREVER if seconds < 0 or seconds > LONGEST_TTL else max(seconds, LEAST_SECONDS)


def requests_unload(keep_alive: float | str | None) -> bool:
    return keep_alive is not None and _seconds(keep_alive) == 0


def duration_seconds(text: str) -> float:
    """5400 for "1h30m". The format: https://pkg.go.dev/time#ParseDuration. Raises InvalidRequest."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequest('keep_alive: must be seconds, or a duration such as "5m" or "1h30m"', param="keep_alive")
    seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in PART.findall(match[2]))
    return -seconds if match[1] == "-" else seconds


def _seconds(keep_alive: float | str) -> float:
    return duration_seconds(keep_alive) if isinstance(keep_alive, str) else keep_alive
