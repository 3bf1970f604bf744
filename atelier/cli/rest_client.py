"""The server's REST API, for the verbs: JSON over HTTP; errors become messages for people."""

import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Self
from urllib.parse import urlsplit

import httpx

from atelier.cli.output import Failure
from atelier.hosts import is_loopback
from atelier.json_types import Json

DEFAULT_URL = "http://127.0.0.1:1234"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0


class ServerRefused(Failure):
    """The server rejected the request."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """One server. Use it as a context manager: it keeps a connection open."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # a proxy cannot reach a server on this machine
        )

    @classmethod
    def from_environment(cls) -> Self:
        """The server that ATELIER_URL names."""
        return cls(os.environ.get("ATELIER_URL") or DEFAULT_URL, os.environ.get("ATELIER_API_KEY"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def is_on_this_machine(self) -> bool:
        return is_loopback(urlsplit(self.url).hostname or "")

    def get(self, path: str, *, patient: bool = False) -> Json:
        """The reply; `patient`: without a timeout, where the server itself waits for others. Raises Failure."""
        with self._explained():
            return _reply(self._http.get(path, timeout=self._timeout(patient)))

    def post(self, path: str, body: Mapping[str, object], *, patient: bool = False) -> Json:
        """The reply; `patient`: without a timeout, as for a load or a copy. Raises Failure."""
        return self.send("POST", path, body, patient=patient)

    def send(self, method: str, path: str, body: Mapping[str, object] | None = None, *, patient: bool = False) -> Json:
        with self._explained():
            return _reply(self._http.request(method, path, json=body, timeout=self._timeout(patient)))

    def stream(self, path: str, body: Mapping[str, object]) -> Generator[Json]:
        """The server-sent events of the reply up to `[DONE]`; closing the iterator cancels the request."""
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        with self._explained(), self._http.stream("POST", path, json=body, timeout=timeout) as response:
            if response.is_error:
                response.read()
                raise _refusal(response)
            yield from _events(response.iter_lines())

    def _timeout(self, patient: bool) -> httpx.Timeout:
        return httpx.Timeout(None if patient else ANSWER_SECONDS, connect=CONNECT_SECONDS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise Failure(f"No server at {self.url}: start one with: atelier serve") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise Failure(f"ATELIER_URL is not a URL: {self.url}") from None
        except httpx.TimeoutException:
            raise Failure(f"The server at {self.url} did not answer in time.") from None
        except httpx.TransportError as error:
            raise Failure(f"The connection to {self.url} failed: {error}") from None


def _reply(response: httpx.Response) -> Json:
    if response.is_error:
        raise _refusal(response)
    try:
        reply: Json = response.json()
    except ValueError:
        raise Failure(f"{response.url} is not an LM Atelier server. Check ATELIER_URL.") from None
    return reply


def _refusal(response: httpx.Response) -> ServerRefused:
    message = _error_message(response)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        message += " Set ATELIER_API_KEY to the server's key."
    return ServerRefused(message, response.status_code)


def _error_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered with status {response.status_code}. Check ATELIER_URL."


def _events(lines: Iterator[str]) -> Iterator[Json]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if error := event.get("error"):
            raise Failure(str(error.get("message", error)))
        yield event
    raise Failure("The connection closed before the end of the answer.")
