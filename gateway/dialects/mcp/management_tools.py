"""The tools that show and change which models there are: downloaded, loaded, and with which settings."""

from atelier.names import check_identifier
from gateway.core.load_progress import followed, one_more
from gateway.dialects.lmstudio.lmstudio_model_list import V1ModelList, v1_model, v1_models
from gateway.dialects.mcp.tool_definition import Caller, ToolServices
from gateway.dialects.mcp.tool_schemas import (
    Downloaded,
    DownloadInput,
    Loaded,
    LoadInput,
    ModelInput,
    NoInput,
    SearchInput,
    SettingsInput,
    Unloaded,
    UnloadInput,
)
from gateway.dialects.native.download_replies import DownloadObject, HubRepositories, download_object, repository_object
from gateway.dialects.native.model_replies import DescribedModel, described_object
from gateway.dialects.native.preset_replies import ModelSettings, settings_object
from gateway.fleet.registry_client import LoadOptions
from gateway.fleet.snapshot import Download, Model


async def list_models(services: ToolServices, caller: Caller, arguments: NoInput) -> V1ModelList:
    return v1_models(services.watcher.known())


async def model_info(services: ToolServices, caller: Caller, arguments: ModelInput) -> DescribedModel:
    model = services.catalogue.find_model(arguments.model)
    described = await services.control.describe_model(model.key)
    return described_object(described, v1_model(model, services.watcher.snapshot))


async def effective_settings(services: ToolServices, caller: Caller, arguments: SettingsInput) -> ModelSettings:
    return settings_object(services.watcher.known(), arguments.model, arguments.instance, arguments.preset)


async def load_model(services: ToolServices, caller: Caller, arguments: LoadInput) -> Loaded:
    identifier = check_identifier(arguments.identifier) if arguments.identifier is not None else None
    model = services.catalogue.find_model(arguments.model)
    settings = arguments.settings.model_dump(exclude_none=True) if arguments.settings else {}
    options = LoadOptions(identifier, arguments.preset, arguments.ttl)
    caller.account.model = model.key
    instance = await followed(
        services.control.load(model.key, options, settings, caller.origin.request_id),
        one_more(model.key, services.watcher.snapshot),
        services.watcher,
        caller.report,
    )
    return Loaded(
        instance_id=instance.id,
        model=model.key,
        load_time_seconds=instance.load_seconds,
        context_length=instance.context_length,
    )


async def unload_model(services: ToolServices, caller: Caller, arguments: UnloadInput) -> Unloaded:
    instance = services.catalogue.find_instance(arguments.instance_id)
    await services.control.unload(instance.id)
    return Unloaded(instance_id=instance.id)


async def search_models(services: ToolServices, caller: Caller, arguments: SearchInput) -> HubRepositories:
    found = await services.control.search_hub(arguments.query.strip(), arguments.limit)
    return {"models": [repository_object(each) for each in found.repositories]}


async def download_model(services: ToolServices, caller: Caller, arguments: DownloadInput) -> Downloaded:
    """Returns when the download has ended. Cancelling the call does not cancel the download."""
    known = services.watcher.known().downloads
    started = await services.control.start_download(arguments.model, arguments.quantization, arguments.revision)
    if isinstance(started, Model):
        return Downloaded(status="already_downloaded", model_key=started.key, download=None)
    ended = await _followed(services, caller, started, known.get(started.id))
    shown: DownloadObject = {"estimated_completion": None, "completed_at": None, **download_object(ended)}
    return Downloaded(status="downloaded", model_key=ended.model_key, download=shown)


async def _followed(services: ToolServices, caller: Caller, started: Download, stale: Download | None) -> Download:
    """The download's last state. Reports its progress."""
    done, last = -1, started
    async for download in services.follower.states(started, stale):
        last = download
        if download.done_bytes > done:  # reported progress must increase
            done = download.done_bytes
            await caller.report(done, download.total_bytes or None, f"{download.state.value} {download.repo}")
    return last
