"""Hub search, and the channel that downloads a model."""

import asyncio
from pathlib import PurePosixPath

from atelier.errors import NotFound, UnsupportedField
from atelier.json_types import Json
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.lmstudio_sdk.sdk_context import CallContext, Channel, Heartbeat
from gateway.dialects.lmstudio_sdk.sdk_frames import DownloadOptionsParameter, DownloadParameter, SearchParameter
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Download, DownloadState, Model
from gateway.fleet.watcher import Watcher
from protos import registry_pb2 as pb

FORMAT = "gguf"
DEFAULT_LIMIT = 10  # repositories
START_FINALIZING = {"type": "startFinalizing"}


class RepositoryEndpoints:
    def __init__(self, watcher: Watcher, control: Control, follower: DownloadFollower) -> None:
        self._watcher = watcher
        self._control = control
        self._follower = follower

    async def search(self, parameter: SearchParameter, context: CallContext) -> Json:
        """Repositories with GGUF models, the most downloaded first."""
        options = parameter.opts
        if options.compatibility_types is not None and FORMAT not in options.compatibility_types:
            return {"results": []}
        term = (options.search_term or "").strip()
        found = await self._control.search_hub(term, options.limit or DEFAULT_LIMIT)
        return {"results": [search_result(each.id, term) for each in found.repositories]}

    async def download_options(self, parameter: DownloadOptionsParameter, context: CallContext) -> Json:
        """The variants in one repository, the smallest first."""
        wanted = parameter.model_search_result_identifier
        if wanted.type == "catalog":
            raise UnsupportedField(
                "LM Studio's own catalogue is not available; name the repository on the hub instead.",
                param="modelSearchResultIdentifier.type",
            )
        found = (await self._control.search_hub(wanted.identifier, 1)).repositories
        repository = next((each for each in found if each.id.lower() == wanted.identifier.lower()), None)
        if repository is None:
            raise NotFound(
                f'The hub has no repository "{wanted.identifier[:200]}".',
                param="modelSearchResultIdentifier.identifier",
            )
        return {"results": [download_option(repository.id, variant) for variant in repository.variants]}

    async def download(self, parameter: DownloadParameter, channel: Channel) -> None:
        """Ends when the model can be loaded. If the client cancels, a download that it started is cancelled too."""
        known = self._watcher.known().downloads
        started = await self._control.start_download(parameter.download_identifier, None, None)
        if isinstance(started, Model):
            await channel.finish(success_message(started.key))
            return
        stale = known.get(started.id)
        try:
            key = await self._followed(started, stale, channel)
        except asyncio.CancelledError:
            if not channel.absorb_cancel():
                raise
            if stale is None:
                await self._control.control_download(started.id, "cancel")
            return
        await channel.finish(success_message(key))

    async def _followed(self, started: Download, stale: Download | None, channel: Channel) -> str:
        """The downloaded model's key. Until then, progress is sent."""
        finalizing = False
        async with Heartbeat(channel, progress_message(started)) as heartbeat:
            async for download in self._follower.states(started, stale):
                if download.state in (DownloadState.VERIFYING, DownloadState.COMPLETED):
                    if not finalizing:
                        await heartbeat.send(START_FINALIZING)
                    finalizing = True
                else:
                    await heartbeat.update(progress_message(download))
        channel.account.model = download.model_key
        return download.model_key


def search_result(repo: str, term: str) -> Json:
    identifier = {"type": "hf", "identifier": repo}
    return {"name": repo, "identifier": identifier, "exact": repo.lower() == term.lower()}


def download_option(repo: str, variant: pb.Variant) -> Json:
    """`fitEstimation` considers main memory only."""
    first = variant.files[0]
    quantization = {"quantization": variant.quantization} if variant.quantization else {}
    return {
        **quantization,
        "name": PurePosixPath(first).name,
        "sizeBytes": variant.size_bytes,
        "fitEstimation": "fitWithoutGPU" if variant.fits else "willNotFit",
        "recommended": variant.usual,
        "downloadIdentifier": f"{repo}:{first}",
        "indexedModelIdentifier": f"{repo}/{first}",
    }


def progress_message(download: Download) -> Json:
    update = {
        "downloadedBytes": download.done_bytes,
        "totalBytes": download.total_bytes,
        "speedBytesPerSecond": download.bytes_per_second,
    }
    return {"type": "downloadProgress", "update": update}


def success_message(key: str) -> Json:
    return {"type": "success", "defaultIdentifier": key}
