"""Reads a request's images: decodes those in the request, fetches those it names by URL."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2

from atelier.errors import InvalidRequest, UnsupportedField
from gateway.core.images import (
    LARGEST_IMAGE,
    Allowance,
    ImageSource,
    RemoteImage,
    decode,
    known_image,
    refuse_many,
    too_large,
)
from gateway.core.outbound import AddressGuard, ForbiddenAddress, outbound_client

FETCH_SECONDS = 20.0  # for one image: the wait for its turn, name resolution and redirects included
MOST_AT_ONCE = 16  # fetches of one gateway
LARGE_CHARACTERS = 2**18  # of base64, whose decoding would delay other streams


class ImageReader:
    """One per gateway, which closes it. Opens no HTTP client before the first image that has to be fetched."""

    def __init__(self, guard: AddressGuard | None) -> None:
        """`guard`: of the addresses that images are fetched from; None: URLs are rejected."""
        self._guard = guard
        self._client: httpx2.AsyncClient | None = None
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def read(self, sources: Sequence[ImageSource]) -> list[bytes]:
        """Every image's bytes, in order. Raises InvalidRequest, UnsupportedField; they name the image at fault."""
        refuse_many(sources)
        allowance = Allowance()
        async with _first_error(), asyncio.TaskGroup() as group:
            work = [group.create_task(self._read(source, allowance)) for source in sources]
        return [known_image(done.result(), source.path) for done, source in zip(work, sources, strict=True)]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _read(self, source: ImageSource, allowance: Allowance) -> bytes:
        if isinstance(source, RemoteImage):
            return await self._fetch(source, allowance)
        if len(source.base64) > LARGE_CHARACTERS:
            return await asyncio.to_thread(decode, source, allowance)
        return decode(source, allowance)

    async def _fetch(self, image: RemoteImage, allowance: Allowance) -> bytes:
        client = self._opened(image.path)
        try:
            async with asyncio.timeout(FETCH_SECONDS), self._turns, client.stream("GET", image.url) as reply:
                if reply.status_code != httpx2.codes.OK:
                    raise _not_fetched(image, f"its server returned {reply.status_code}")
                return await _bounded_body(reply, image, allowance)
        except TimeoutError:
            raise _not_fetched(image, f"it did not arrive within {FETCH_SECONDS:g} seconds") from None
        except ForbiddenAddress as reason:
            raise InvalidRequest(f"{image.path}: {reason}", param=image.path) from None
        except httpx2.TooManyRedirects:
            raise _not_fetched(image, "there are too many redirects") from None
        except httpx2.InvalidURL:
            raise InvalidRequest(f"{image.path}: is not a valid URL", param=image.path) from None
        except (httpx2.HTTPError, ssl.SSLError):  # httpx2 does not wrap a TLS error within a body
            raise _not_fetched(image, "its server did not respond correctly") from None

    def _opened(self, path: str) -> httpx2.AsyncClient:
        if self._guard is None:
            message = f"{path}: images are not fetched here (ATELIER_FETCH_IMAGES); send the image itself, in base64."
            raise UnsupportedField(message, param=path)
        if self._client is None:
            self._client = outbound_client(self._guard)
        return self._client


@asynccontextmanager
async def _first_error() -> AsyncIterator[None]:
    """Raises the first task's error in place of a task group's exception group."""
    try:
        yield
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _bounded_body(reply: httpx2.Response, image: RemoteImage, allowance: Allowance) -> bytes:
    """Without decompression, which could make a small body a large one. Raises InvalidRequest when it is too large."""
    length = reply.headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and int(length[:20]) > LARGEST_IMAGE:
        raise too_large(image.path)
    data = bytearray()
    async for piece in reply.aiter_raw():
        data += piece
        if len(data) > LARGEST_IMAGE:
            raise too_large(image.path)
        allowance.take(len(piece), image.path)
    return bytes(data)


def _not_fetched(image: RemoteImage, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{image.path}: the image could not be fetched: {reason}", param=image.path)
