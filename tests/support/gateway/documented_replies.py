"""Every reply of a gateway under test is checked against its OpenAPI document: the status, the body, each event."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jsonschema_rs
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier.json_types import Json
from gateway.dialects.route import EVENTS, JSON, LINES

# Statuses that the middleware returns for every path, or for paths without a route.
ANYWHERE = (404, 405, 408, 413, 431, 499, 500)


class RepliesChecked:
    """The application, and the replies that its OpenAPI document does not allow."""

    def __init__(self, app: FastAPI) -> None:
        self._app: ASGIApp = app
        self._openapi = app.openapi
        self.faults: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply()

        async def send_noted(message: Message) -> None:
            reply.note(message)
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            path = getattr(scope.get("route"), "path_format", None)
            if reply.status is not None and path is not None and path not in ("/docs", "/openapi.json"):
                self._check(f"{scope['method']} {path}", reply)

    def _check(self, operation: str, reply: "_Reply") -> None:
        method, _, path = operation.partition(" ")
        documented = _document(self._openapi)["paths"][path].get(method.lower(), {"responses": {}})
        expected = documented["responses"].get(str(reply.status))
        if expected is None:
            if reply.status not in ANYWHERE:
                self.faults.append(f"{operation}: status {reply.status} is not documented: {reply.body[:300]!r}")
            return
        contents = expected.get("content", {})
        if not contents and not reply.body:
            return
        if reply.kind not in contents:
            self.faults.append(f"{operation}: {reply.status} has the media type {reply.kind!r}")
            return
        if reply.kind not in (JSON, EVENTS, LINES):
            return
        validator = _validator(self._openapi, operation, reply.status or 0, reply.kind)
        for part in reply.parts():
            for error in validator.iter_errors(part):
                place = "/".join(map(str, error.instance_path))
                detail = f"{error.message[:400]} in {str(part)[:600]}"
                self.faults.append(f"{operation} {reply.status} {reply.kind} at /{place}: {detail}")


class _Reply:
    def __init__(self) -> None:
        self.status: int | None = None
        self.kind = ""
        self.body = b""

    def note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"").decode()
            self.kind = kind.partition(";")[0]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def parts(self) -> Iterator[Any]:
        """The JSON values: the body, or each complete event."""
        if self.kind == JSON:
            yield json.loads(self.body)
        elif self.kind == LINES:
            yield from _read(self.body.split(b"\n")[:-1])
        else:
            data = [line.removeprefix(b"data: ") for line in self.body.split(b"\n") if line.startswith(b"data: ")]
            yield from _read(each for each in data if each != b"[DONE]")


def _read(texts: Iterable[bytes]) -> Iterator[Any]:
    for text in texts:
        yield json.loads(text)


_DOCUMENT: Json = {}


def _document(openapi: Callable[[], Json]) -> Json:
    """The document is the same for every gateway, and made once per process."""
    if not _DOCUMENT:
        _DOCUMENT.update(openapi())
    return _DOCUMENT


_VALIDATORS: dict[tuple[str, int, str], Any] = {}


def _validator(openapi: Callable[[], Json], operation: str, status: int, kind: str) -> Any:
    key = (operation, status, kind)
    if key not in _VALIDATORS:
        document = _document(openapi)
        method, _, path = operation.partition(" ")
        schema = document["paths"][path][method.lower()]["responses"][str(status)]["content"][kind]["schema"]
        _VALIDATORS[key] = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return _VALIDATORS[key]
