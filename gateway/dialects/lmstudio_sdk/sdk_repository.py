"""What the hub has, and bringing it here."""

import asyncio
from pathlib import PurePosixPath
from typing import Any

from atelier.errors import NotFound, UnsupportedField
from atelier.json_types import Json
from gateway.dialects.download_follower import DownloadFollower
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Pulse, Work
from gateway.dialects.lmstudio_sdk.sdk_errors import parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import DownloadOptionsParameter, DownloadParameter, SearchParameter
from gateway.fleet.control import Control
from gateway.fleet.snapshot import Download, DownloadState, Model
from gateway.fleet.watcher import Watcher
from protos import registry_pb2 as pb

FORMAT = "gguf"
USUALLY_FOUND = 10
START_FINALIZING = {"type": "startFinalizing"}


class Repositories:
    def __init__(self, watcher: Watcher, control: Control, follower: DownloadFollower) -> None:
        self._watcher = watcher
        self._control = control
        self._follower = follower

    async def search(self, parameter: Any, work: Work) -> Json:
        """Repositories with models, the most downloaded first."""
        asked = parsed(SearchParameter, parameter).opts
        if asked.compatibility_types is not None and FORMAT not in asked.compatibility_types:
            return {"results": []}
        term = (asked.search_term or "").strip()
        found = await self._control.search_hub(term, asked.limit or USUALLY_FOUND)
        return {"results": [search_result(each.id, term) for each in found.repositories]}

    async def download_options(self, parameter: Any, work: Work) -> Json:
        """The quantisations of one repository, smallest first."""
        asked = parsed(DownloadOptionsParameter, parameter).model_search_result_identifier
        if asked.type == "catalog":
            raise UnsupportedField(
                "LM Studio's own catalogue cannot be asked; name the repository on the hub that it leads to.",
                param="modelSearchResultIdentifier.type",
            )
        found = (await self._control.search_hub(asked.identifier, 1)).repositories
        repository = next((each for each in found if each.id.lower() == asked.identifier.lower()), None)
        if repository is None:
            raise NotFound(
                f'The hub has no repository "{asked.identifier[:200]}".', param="modelSearchResultIdentifier.identifier"
            )
        return {"results": [download_option(repository.id, variant) for variant in repository.variants]}

    async def download(self, parameter: Any, channel: Channel) -> None:
        """Until the model can be loaded. A client that cancels ends the download, unless it has only joined it."""
        reference = parsed(DownloadParameter, parameter).download_identifier
        known = self._watcher.known().downloads
        started = await self._control.start_download(reference, None, None)
        if isinstance(started, Model):
            await channel.finish(success_message(started.key))
            return
        stale = known.get(started.id)
        try:
            key = await self._followed(started, stale, channel)
        except asyncio.CancelledError:
            if not channel.was_stopped():
                raise
            if stale is None:
                await self._control.control_download(started.id, "cancel")
            return
        await channel.finish(success_message(key))

    async def _followed(self, started: Download, stale: Download | None, channel: Channel) -> str:
        """The model's key, once all has come; until then the client is told how far it is."""
        finalizing = False
        async with Pulse(channel, progress_message(started)) as pulse:
            async for download in self._follower.states(started, stale):
                if download.state in (DownloadState.VERIFYING, DownloadState.COMPLETED):
                    if not finalizing:
                        await pulse.send(START_FINALIZING)
                    finalizing = True
                else:
                    pulse.message = progress_message(download)
                    await pulse.send(pulse.message)
        channel.account.model = download.model_key
        return download.model_key


def search_result(repo: str, term: str) -> Json:
    identifier = {"type": "hf", "identifier": repo}
    return {"name": repo, "identifier": identifier, "exact": repo.lower() == term.lower()}


def download_option(repo: str, variant: pb.Variant) -> Json:
    """Whether it fits is known of main memory alone."""
    first = variant.files[0]
    told = {"quantization": variant.quantization} if variant.quantization else {}
    return {
        **told,
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
