"""A client of the Hugging Face hub, on huggingface_hub. Everything here blocks and is for threads.

The library reads HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the proxies' variables when it is imported. The import is
deferred to the first request, because it takes half as long as the registry's start.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atelier import __version__
from atelier.errors import AtelierError, HubAccessDenied, HubUnavailable, InvalidRequest, NotFound
from registry.hub.hub_listing import RepoFile, Repository

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import ExpandModelProperty_T, RepoSibling

AT_ONCE = 8  # requests for the files of the repositories that a search found
SEARCH_FACTS: "list[ExpandModelProperty_T]" = ["author", "downloads", "likes", "gated", "lastModified", "sha", "tags"]
METADATA_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Location:
    """The URL of a file's bytes, and the ETag that identifies its version."""

    url: str
    etag: str
    size: int
    headers: Mapping[str, str]


class Hub:
    """One hub, as one user. Failures are raised as errors of atelier/errors.py that say what to do."""

    def __init__(self, token: str | None = None, endpoint: str | None = None) -> None:
        """By default the library finds both: in HF_TOKEN or its own login, and in HF_ENDPOINT."""
        self._token = token
        self._endpoint = endpoint

    @property
    def host(self) -> str:
        """Of the hub or its mirror."""
        return urlsplit(str(self._api.endpoint)).hostname or ""

    def search(self, query: str, limit: int) -> list[Repository]:
        """Repositories with GGUF files, and their files; the most downloaded first."""
        with explained(f'the search for "{query}"'):
            found = list(
                self._api.list_models(
                    search=query or None, filter="gguf", sort="downloads", limit=limit, expand=SEARCH_FACTS
                )
            )
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hub-search") as pool:
            return list(pool.map(self._with_files, found))

    def repository(self, repo: str, revision: str = "") -> Repository:
        """The repository at this revision, by default the newest."""
        with explained(repo):
            return _repository(
                self._api.model_info(repo, revision=revision or None, files_metadata=True, timeout=METADATA_SECONDS)
            )

    def locate(self, repo: str, commit: str, path: str) -> Location:
        """The present URL of this file of this commit; signed URLs expire."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not exported

        with explained(f"{path} of {repo}"):
            url = hf_hub_url(repo, path, revision=commit, endpoint=self._api.endpoint)
            found = get_hf_file_metadata(url, token=self._api.token, timeout=METADATA_SECONDS)
            if found.etag is None or found.size is None:
                raise HubUnavailable(f"The hub does not report the size of {path}; is {self.host} a hub?")
            # A signed URL of another host needs no token, and must not receive one.
            token = self._api.token if urlsplit(found.location).netloc == urlsplit(url).netloc else False
            headers = build_hf_headers(token=token, library_name="lm-atelier", library_version=__version__)
            return Location(found.location, found.etag, found.size, {**headers, "Accept-Encoding": "identity"})

    @cached_property
    def _api(self) -> "HfApi":
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # Xet downloads can be neither resumed nor stopped
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi, get_session

        get_session().timeout = METADATA_SECONDS  # the library's own client has no timeout
        return HfApi(self._endpoint, token=self._token, library_name="lm-atelier", library_version=__version__)

    def _with_files(self, found: "ModelInfo") -> Repository:
        """The repository with its files; what the search returned, where the files are not accessible."""
        try:
            return self.repository(found.id)
        except AtelierError:
            return _repository(found)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Inside, failures of requests to the hub are raised as errors of atelier/errors.py."""
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise HubAccessDenied(
            f"{what}: access is restricted by its authors. Accept their terms on the repository's page, and give the "
            "server that account's token, as HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotFound(
            f"{what}: the hub has no such repository, or it is private and the server has no token for it (HF_TOKEN).",
            param="model",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(f"{what}: the repository has no such revision.", param="revision") from error
    except errors.EntryNotFoundError as error:
        raise NotFound(f"{what}: the hub no longer has it.", param="model") from error
    except errors.HFValidationError as error:
        raise InvalidRequest(f"{what}: {error}", param="model") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnavailable("HF_HUB_OFFLINE keeps the server offline; import a file instead.") from error
    except errors.HfHubHTTPError as error:
        raise refusal(what, error.response.status_code) from error
    except (ValueError, TypeError, KeyError, InvalidURL) as error:  # of a reply that no hub sends
        raise HubUnavailable(f"{what}: the reply is not a hub's; is HF_ENDPOINT correct? ({error})") from error
    except (HTTPError, ConnectionError, TimeoutError, errors.FileMetadataError) as error:
        raise HubUnavailable(f"{what}: the hub cannot be reached: {str(error) or type(error).__name__}") from error


def refusal(what: str, status: int) -> AtelierError:
    """The error for an HTTP status of the hub."""
    if status == 401:
        return HubAccessDenied(f"{what}: the hub rejects the server's token (HF_TOKEN).")
    if status == 403:
        return HubAccessDenied(f"{what}: the server's token (HF_TOKEN) has no read access to it.")
    if status == 429:
        return HubUnavailable(f"{what}: the hub rejects requests that exceed its rate limit; later ones may succeed.")
    return HubUnavailable(f"{what}: the hub responded with status {status}.")


def _repository(info: "ModelInfo") -> Repository:
    tags = info.tags or []
    return Repository(
        id=info.id,
        commit=info.sha or "",
        files=tuple(_file(sibling) for sibling in info.siblings or [] if sibling.size is not None),
        author=info.author or info.id.partition("/")[0],
        downloads=info.downloads or 0,
        likes=info.likes or 0,
        gated=bool(info.gated),
        changed_at=info.last_modified.isoformat() if info.last_modified else "",
        licence=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), ""),
    )


def _file(sibling: "RepoSibling") -> RepoFile:
    digest = f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"
    return RepoFile(sibling.rfilename, sibling.size or 0, digest)
