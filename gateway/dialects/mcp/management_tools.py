"""The tools that show and change what the server has."""

from atelier.json_types import Json
from atelier.names import check_identifier
from gateway.core.load_progress import followed, one_more
from gateway.dialects.lmstudio.lmstudio_translation import v1_model
from gateway.dialects.mcp.tool_definition import Caller, Core
from gateway.dialects.mcp.tool_inputs import LoadInput, ModelInput, NoInput, SettingsInput, UnloadInput
from gateway.dialects.mcp.tool_outputs import Loaded, Unloaded
from gateway.dialects.native.native_translation import described_object
from gateway.dialects.native.preset_routes import settings_object
from gateway.fleet.registry_client import LoadWish


async def list_models(core: Core, caller: Caller, asked: NoInput) -> Json:
    snapshot = core.watcher.known()
    entries = [v1_model(model, snapshot) for _, model in sorted(snapshot.models.items())]
    return {"models": entries}


async def model_info(core: Core, caller: Caller, asked: ModelInput) -> Json:
    model = core.catalogue.find_model(asked.model)
    described = await core.control.describe_model(model.key)
    return described_object(described, v1_model(model, core.watcher.snapshot))


async def effective_settings(core: Core, caller: Caller, asked: SettingsInput) -> Json:
    return settings_object(core.watcher.known(), asked.model, asked.instance, asked.preset)


async def load_model(core: Core, caller: Caller, asked: LoadInput) -> Loaded:
    identifier = check_identifier(asked.identifier) if asked.identifier is not None else None
    model = core.catalogue.find_model(asked.model)
    settings = asked.settings.model_dump(exclude_none=True) if asked.settings else {}
    wish = LoadWish(identifier, asked.preset, asked.ttl)
    caller.account.model = model.key
    instance = await followed(
        core.control.load(model.key, wish, settings, caller.origin.request_id),
        one_more(model.key, core.watcher.snapshot),
        core.watcher,
        caller.report,
    )
    return Loaded(
        instance_id=instance.id,
        model=model.key,
        load_time_seconds=instance.load_seconds,
        context_length=instance.context_length,
    )


async def unload_model(core: Core, caller: Caller, asked: UnloadInput) -> Unloaded:
    instance = core.catalogue.find_instance(asked.instance_id)
    await core.control.unload(instance.id)
    return Unloaded(instance_id=instance.id)
