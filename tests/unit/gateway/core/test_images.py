"""Validation of images, and fetching of remote ones."""

import asyncio
import base64
import gzip
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from atelier.errors import InvalidRequest, UnsupportedField
from gateway.core import image_reader, images
from gateway.core.image_reader import ImageReader
from gateway.core.images import EncodedImage, RemoteImage, content_of, image_at, image_format, set_apart
from gateway.core.outbound import AddressGuard, outbound_client

PNG = b"\x89PNG\r\n\x1a\nrest"
FORMATS = {
    "png": PNG,
    "jpeg": b"\xff\xd8\xff\xe0rest",
    "webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "gif": b"GIF89arest",
    "bmp": b"BMrest",
}


def encoded(data: bytes, path: str = "a[0]") -> EncodedImage:
    return EncodedImage(base64.b64encode(data).decode(), path)


@pytest.mark.parametrize(("name", "data"), FORMATS.items())
def test_an_image_format_is_recognised_by_its_first_bytes(name: str, data: bytes) -> None:
    assert image_format(data) == name


@pytest.mark.parametrize("data", [b"", b"RIFF\x10\x00\x00\x00WAVE", b"<svg/>", b"II*\x00", b"GIF", b"\x89PNG", b"hi"])
def test_data_other_than_images_has_no_format(data: bytes) -> None:
    assert image_format(data) is None


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("data:image/png;base64,aGk=", EncodedImage("aGk=", "p")),
        ("DATA:;BASE64,aGk=", EncodedImage("aGk=", "p")),
        ("data:image/svg+xml;charset=utf-8;base64,a,b", EncodedImage("a,b", "p")),
        ("https://example.org/a.png?b", RemoteImage("https://example.org/a.png?b", "p")),
        ("HTTP://example.org/", RemoteImage("HTTP://example.org/", "p")),
    ],
)
def test_a_url_contains_an_image_or_its_address(url: str, source: Any) -> None:
    assert image_at(url, "p") == source


@pytest.mark.parametrize(
    "url",
    [
        *("", "data:", "data:,", "data:image/png,aGk=", "data:image/png;base64", "image.png", "/etc/passwd"),
        *("file:///etc/passwd", "ftp://a/b", "httpx://a", "javascript:1", "https://a/" + "b" * 9000, "aGk="),
    ],
)
def test_other_urls_are_rejected_by_field_name(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^p: ") as caught:
        image_at(url, "p")
    assert caught.value.param == "p"


def test_content_is_a_string_unless_it_has_images() -> None:
    first, second = encoded(PNG), RemoteImage("https://a/b", "a[1]")
    assert content_of(["one", "two"]) == "one\ntwo"
    assert content_of(["one", "two"], joint="") == "onetwo"
    assert content_of([]) == ""
    content = content_of(["one", "two", first, second, "", "three"])
    messages = [{"role": "user", "content": "hi"}, {"role": "user", "name": "x", "content": content}]
    parts = [{"type": "text", "text": "one\ntwo"}, {"type": "image"}, {"type": "image"}]
    assert set_apart(messages) == (
        [messages[0], {"role": "user", "name": "x", "content": [*parts, {"type": "text", "text": "\nthree"}]}],
        (first, second),
    )


def reply_of(body: bytes, headers: dict[str, str] | None = None) -> httpx2.Response:
    """A response as a connection delivers it, with its body not yet read."""
    return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(body))


async def refused(reader: ImageReader, *sources: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await reader.read(sources)
    assert caught.value.message.startswith(f"{caught.value.param}: ")
    return caught.value


@pytest.mark.parametrize("text", ["aGk", "aGk=\n", "aG k=", "aGk-", "aGk_", "=aGk", "aGk==", "ä", "\ud7ff", "aGk=aGk="])
async def test_base64_is_read_strictly(text: str) -> None:
    error = await refused(ImageReader(None), EncodedImage(text, "a[0]"))
    assert (error.message, error.param) == ("a[0]: is not valid base64", "a[0]")


async def test_data_other_than_images_is_rejected_by_field_path() -> None:
    error = await refused(ImageReader(None), encoded(PNG), encoded(b"<svg/>", "a[1]"))
    assert error.message == "a[1]: is not a PNG, JPEG, WebP, GIF or BMP image"


async def test_images_are_returned_in_request_order() -> None:
    large = PNG + bytes(2**20)  # decoded in a thread, so it is ready later than the next
    assert await ImageReader(None).read([encoded(large), encoded(FORMATS["gif"])]) == [large, FORMATS["gif"]]


async def test_the_size_total_size_and_number_of_images_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGEST_IMAGE", 30)
    monkeypatch.setattr(images, "LARGEST_TOGETHER", 50)
    reader = ImageReader(None)
    assert len(await reader.read([encoded(PNG + bytes(18)), encoded(PNG)])) == 2
    assert "larger than" in (await refused(reader, encoded(PNG + bytes(19)))).message
    error = await refused(reader, *(encoded(PNG + bytes(10), f"a[{i}]") for i in range(3)))
    assert (error.param, "together" in error.message) == ("a[2]", True)
    error = await refused(reader, *(encoded(PNG, f"a[{i}]") for i in range(images.MOST_IMAGES + 1)))
    assert error.param == f"a[{images.MOST_IMAGES}]"


class Fetching:
    """A reader whose requests a function answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        async def resolve(host: str, port: int) -> list[str]:
            return ["93.184.215.14"] if host == "example.org" else ["10.0.0.1"]

        transport = httpx2.MockTransport(answer)
        monkeypatch.setattr(image_reader, "outbound_client", lambda guard: outbound_client(guard, transport))
        self.reader = ImageReader(AddressGuard((), resolve))

    async def read(self, url: str) -> list[bytes]:
        try:
            return await self.reader.read([RemoteImage(url, "a[0]")])
        finally:
            await self.reader.close()

    async def refused(self, url: str = "https://example.org/a") -> InvalidRequest:
        with pytest.raises(InvalidRequest) as caught:
            await self.read(url)
        assert caught.value.param == "a[0]"
        assert caught.value.message.startswith("a[0]: ")
        return caught.value


async def test_a_remote_image_is_fetched_without_compression_or_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return reply_of(PNG)

    assert await Fetching(monkeypatch, answer).read("https://example.org/a") == [PNG]
    [request] = asked
    assert (request.method, request.headers["accept-encoding"]) == ("GET", "identity")
    assert not {"cookie", "authorization", "referer"} & set(request.headers)


async def endless() -> AsyncIterator[bytes]:
    yield PNG
    while True:
        yield bytes(10)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx2.Response(404), "returned 404"),
        (httpx2.Response(206, content=PNG), "returned 206"),
        (reply_of(b"<html>"), "is not a PNG"),
        (httpx2.Response(200, headers={"content-length": "9999999999"}, content=b""), "larger than"),
        (httpx2.Response(200, content=endless()), "larger than"),
        (httpx2.Response(302, headers={"location": "http://inner/"}), "not public"),
        (httpx2.Response(302, headers={"location": "file:///etc/passwd"}), "http"),
        (httpx2.Response(302, headers={"location": "https://example.org/a"}), "too many redirects"),
    ],
)
async def test_an_unusable_reply_is_reported_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, reply: httpx2.Response, reason: str
) -> None:
    monkeypatch.setattr(image_reader, "LARGEST_IMAGE", 1000)
    assert reason in (await Fetching(monkeypatch, lambda _: reply).refused()).message


async def test_a_compressed_body_is_not_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = reply_of(gzip.compress(PNG), {"content-encoding": "gzip"})
    assert "is not a PNG" in (await Fetching(monkeypatch, lambda _: reply).refused()).message


@pytest.mark.parametrize("url", ["https://inner/a", "http://user:secret@example.org/a", "http://exa mple/", "http://"])
async def test_a_forbidden_url_is_not_fetched(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(request.url)

    error = await Fetching(monkeypatch, answer).refused(url)
    assert "secret" not in error.message


async def test_a_slow_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(image_reader, "FETCH_SECONDS", 0.01)
    assert "within" in (await Fetching(monkeypatch, answer).refused()).message


async def test_a_broken_connection_is_reported_without_its_details(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.RemoteProtocolError("10.0.0.1 said nonsense")

    assert "10.0.0.1" not in (await Fetching(monkeypatch, answer).refused()).message


async def test_a_tls_error_within_a_body_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx2 does not wrap it in an exception of its own."""

    async def broken() -> AsyncIterator[bytes]:
        yield PNG
        raise ssl.SSLError("bad record mac")

    error = await Fetching(monkeypatch, lambda _: httpx2.Response(200, content=broken())).refused()
    assert "did not respond correctly" in error.message


async def test_nothing_is_fetched_without_permission() -> None:
    error = await refused(ImageReader(None), RemoteImage("https://example.org/a", "a[0]"))
    assert isinstance(error, UnsupportedField)
    assert "ATELIER_FETCH_IMAGES" in error.message
