"""The tools that speak to the hub."""

from typing import cast

from atelier.json_types import Json
from gateway.dialects.mcp.tool_definition import Caller, Core
from gateway.dialects.mcp.tool_inputs import DownloadInput, SearchInput
from gateway.dialects.mcp.tool_outputs import Downloaded
from gateway.dialects.native.download_reply_types import DownloadObject
from gateway.dialects.native.download_routes import download_object, repository_object
from gateway.fleet.snapshot import Download, Model


async def search_models(core: Core, caller: Caller, asked: SearchInput) -> Json:
    found = await core.control.search_hub(asked.query.strip(), asked.limit)
    return {"models": [repository_object(each) for each in found.repositories]}


async def download_model(core: Core, caller: Caller, asked: DownloadInput) -> Downloaded:
    """Returns when it has ended. A caller that gives up waits no longer; the download goes on."""
    known = core.watcher.known().downloads
    started = await core.control.start_download(asked.model, asked.quantization, asked.revision)
    if isinstance(started, Model):
        return Downloaded(status="already_downloaded", model_key=started.key, download=None)
    ended = await _followed(core, caller, started, known.get(started.id))
    told = cast(DownloadObject, {"estimated_completion": None, "completed_at": None, **download_object(ended)})
    return Downloaded(status="downloaded", model_key=ended.model_key, download=told)


async def _followed(core: Core, caller: Caller, started: Download, stale: Download | None) -> Download:
    done = -1
    async for download in core.follower.states(started, stale):
        started = download
        if download.done_bytes > done:  # progress must grow
            done = download.done_bytes
            await caller.report(done, download.total_bytes or None, f"{download.state.value} {download.repo}")
    return started
