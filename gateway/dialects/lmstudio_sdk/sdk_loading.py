"""The channels that load models."""

from collections.abc import Coroutine

from atelier.json_types import Json
from atelier.names import check_identifier
from gateway.core.call_plan import find_target, reported_name
from gateway.core.load_progress import followed, one_more
from gateway.dialects.lmstudio_sdk.sdk_config import load_settings
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Heartbeat
from gateway.dialects.lmstudio_sdk.sdk_frames import GetOrLoadParameter, LoadModelParameter
from gateway.dialects.lmstudio_sdk.sdk_models import check_domain, find_loaded, instance_info, model_info
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.registry_client import LoadOptions
from gateway.fleet.snapshot import Instance, Model
from gateway.fleet.watcher import Watcher


class LoadChannels:
    def __init__(self, catalogue: Catalogue, control: Control, watcher: Watcher) -> None:
        self._catalogue = catalogue
        self._control = control
        self._watcher = watcher

    async def get_or_load(self, parameter: GetOrLoadParameter, channel: Channel) -> None:
        """A loaded instance if there is one, else a new one; the configuration applies only to a new one."""
        name = channel.requested.model = parameter.identifier
        snapshot = self._watcher.known()
        if (instance := find_loaded(name, snapshot, channel.domain)) is not None:
            await channel.finish(self._message("alreadyLoaded", instance))
            return
        target, model = find_target(name, snapshot)
        load = load_settings(parameter.load_config_stack, model)
        name, ttl = reported_name(target), _seconds(parameter.load_ttl_ms)
        await channel.send({"type": "startLoading", "identifier": name, "info": model_info(model)})
        loading = self._control.ensure(name, ttl, load, channel.account.request_id)
        instance = await self._followed(loading, model, channel, "loadProgress")
        await channel.finish(self._message("loadSuccess", instance))

    async def load_model(self, parameter: LoadModelParameter, channel: Channel) -> None:
        """One more instance of the model."""
        channel.requested.model = parameter.model_key
        model = self._catalogue.find_model(parameter.model_key)
        check_domain(model, channel.domain)
        identifier = check_identifier(parameter.identifier) if parameter.identifier is not None else None
        load = load_settings(parameter.load_config_stack, model)
        await channel.send({"type": "resolved", "info": model_info(model)})
        options = LoadOptions(identifier, None, _seconds(parameter.ttl_ms))
        loading = self._control.load(model.key, options, load, channel.account.request_id)
        instance = await self._followed(loading, model, channel, "progress")
        await channel.finish(self._message("success", instance))

    async def _followed(
        self, loading: Coroutine[object, object, Instance], model: Model, channel: Channel, kind: str
    ) -> Instance:
        """The loaded instance. Until then, its progress is sent in messages of this kind."""
        channel.account.model = model.key
        async with Heartbeat(channel, {"type": kind, "progress": 0.0}) as heartbeat:

            async def report(progress: float) -> None:
                await heartbeat.update({"type": kind, "progress": progress})

            reached = one_more(model.key, self._watcher.snapshot)
            return await followed(loading, reached, self._watcher, report)

    def _message(self, kind: str, instance: Instance) -> Json:
        return {"type": kind, "info": instance_info(instance, self._watcher.snapshot.model_of(instance))}


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
