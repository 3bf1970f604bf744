"""The channels that load models."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from atelier.names import InstanceName, ModelName, check_identifier
from gateway.call import find_target, told_name
from gateway.catalogue import Catalogue
from gateway.control import Control
from gateway.lmstudio_sdk.config import load_wishes
from gateway.lmstudio_sdk.errors import parsed
from gateway.lmstudio_sdk.models import check_domain, find_loaded, instance_info, model_info, model_of
from gateway.lmstudio_sdk.schema import GetOrLoadParameter, LoadModelParameter
from gateway.lmstudio_sdk.work import Channel, Pulse
from gateway.registry_client import LoadWish
from gateway.snapshot import LOADED, Instance, Model, Snapshot
from gateway.watcher import Watcher

Json = dict[str, Any]

LOOK_SECONDS = 1.0  # between looks at a load that no change was heard of


class Loading:
    """Loads what clients ask for. Owns the locks that keep two of them from loading one model twice."""

    def __init__(self, catalogue: Catalogue, control: Control, watcher: Watcher) -> None:
        self._catalogue = catalogue
        self._control = control
        self._watcher = watcher
        self._asked: dict[str, asyncio.Lock] = {}  # by the models' keys, while anybody waits

    async def get_or_load(self, parameter: Any, channel: Channel) -> None:
        """The instance that is there, or one that is loaded now, which alone takes the configuration."""
        asked = parsed(GetOrLoadParameter, parameter)
        name = channel.named.model = asked.identifier
        snapshot = self._watcher.known()
        if (instance := find_loaded(name, snapshot, channel.domain)) is not None:
            await channel.finish(self._told("alreadyLoaded", instance))
            return
        target, model = find_target(name, snapshot)
        load = load_wishes(asked.load_config_stack, model)
        ttl = asked.load_ttl_ms / 1000 if asked.load_ttl_ms is not None else None
        await channel.send({"type": "startLoading", "identifier": told_name(target), "info": model_info(model)})
        loading = self._ensure(target, model, load, ttl, channel)
        instance = await self._followed(loading, model, channel, "loadProgress")
        await channel.finish(self._told("loadSuccess", instance))

    async def load_model(self, parameter: Any, channel: Channel) -> None:
        """One more instance."""
        asked = parsed(LoadModelParameter, parameter)
        channel.named.model = asked.model_key
        model = self._catalogue.find_model(asked.model_key)
        check_domain(model, channel.domain)
        identifier = check_identifier(asked.identifier) if asked.identifier is not None else None
        load = load_wishes(asked.load_config_stack, model)
        ttl = asked.ttl_ms / 1000 if asked.ttl_ms is not None else None
        await channel.send({"type": "resolved", "info": model_info(model)})
        loading = self._control.load(model.key, LoadWish(identifier, None, ttl), load, channel.account.request_id)
        instance = await self._followed(loading, model, channel, "progress")
        await channel.finish(self._told("success", instance))

    async def _ensure(
        self,
        target: ModelName | InstanceName,
        model: Model,
        load: Mapping[str, Any],
        ttl: float | None,
        channel: Channel,
    ) -> Instance:
        """The registry makes one load of many that ask for a model; with a configuration it would make one each."""
        if not load or isinstance(target, InstanceName):
            return await self._control.ensure(told_name(target), ttl, channel.account.request_id)
        lock = self._asked.setdefault(model.key, asyncio.Lock())
        try:
            async with lock:
                if self._watcher.snapshot.instances_of(model.key):
                    return await self._control.ensure(model.key, ttl, channel.account.request_id)
                wish = LoadWish(None, None, ttl)
                return await self._control.load(model.key, wish, load, channel.account.request_id)
        finally:
            if not lock.locked():
                self._asked.pop(model.key, None)

    async def _followed(self, loading: Awaitable[Instance], model: Model, channel: Channel, kind: str) -> Instance:
        """The instance, once it is loaded; until then the client is told how far it is."""
        channel.account.model = model.key
        before = {each.id for each in self._watcher.snapshot.instances_of(model.key) if each.state in LOADED}
        async with Pulse(channel, {"type": kind, "progress": 0.0}) as pulse:
            task = asyncio.ensure_future(loading)
            try:
                await self._tell_progress(task, lambda snapshot: progress_of(model.key, before, snapshot), pulse, kind)
                return await task
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait([task])

    async def _tell_progress(
        self, task: asyncio.Future[Any], progress: Callable[[Snapshot], float], pulse: Pulse, kind: str
    ) -> None:
        told = 0.0
        while not task.done():
            change: asyncio.Future[Any] = asyncio.ensure_future(self._watcher.change(LOOK_SECONDS))
            try:
                await asyncio.wait({task, change}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
            if told < (reached := progress(self._watcher.snapshot)) < 1.0:
                told = reached
                pulse.message = {"type": kind, "progress": reached}
                await pulse.send(pulse.message)

    def _told(self, kind: str, instance: Instance) -> Json:
        return {"type": kind, "info": instance_info(instance, model_of(instance, self._watcher.snapshot))}


def progress_of(key: str, before: set[str], snapshot: Snapshot) -> float:
    """How far the instance is that was not there before."""
    new = (instance for instance in snapshot.instances_of(key) if instance.id not in before)
    return max((instance.load_progress for instance in new), default=0.0)
