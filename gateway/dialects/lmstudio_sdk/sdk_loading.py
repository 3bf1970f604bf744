"""The channels that load models."""

from collections.abc import Coroutine
from typing import Any

from atelier.json_types import Json
from atelier.names import check_identifier
from gateway.core.call import find_target, told_name
from gateway.core.load_progress import followed, one_more
from gateway.dialects.lmstudio_sdk.sdk_config import load_wishes
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Pulse
from gateway.dialects.lmstudio_sdk.sdk_errors import parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import GetOrLoadParameter, LoadModelParameter
from gateway.dialects.lmstudio_sdk.sdk_models import check_domain, find_loaded, instance_info, model_info, model_of
from gateway.fleet.catalogue import Catalogue
from gateway.fleet.control import Control
from gateway.fleet.registry_client import LoadWish
from gateway.fleet.snapshot import Instance, Model
from gateway.fleet.watcher import Watcher


class Loading:
    """Loads what clients ask for."""

    def __init__(self, catalogue: Catalogue, control: Control, watcher: Watcher) -> None:
        self._catalogue = catalogue
        self._control = control
        self._watcher = watcher

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
        loading = self._control.ensure(told_name(target), ttl, load, channel.account.request_id)
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

    async def _followed(
        self, loading: Coroutine[Any, Any, Instance], model: Model, channel: Channel, kind: str
    ) -> Instance:
        """The instance, once it is loaded; until then the client is told how far it is."""
        channel.account.model = model.key
        async with Pulse(channel, {"type": kind, "progress": 0.0}) as pulse:

            async def report(progress: float) -> None:
                pulse.message = {"type": kind, "progress": progress}
                await pulse.send(pulse.message)

            reached = one_more(model.key, self._watcher.snapshot)
            return await followed(loading, reached, self._watcher, report)

    def _told(self, kind: str, instance: Instance) -> Json:
        return {"type": kind, "info": instance_info(instance, model_of(instance, self._watcher.snapshot))}
