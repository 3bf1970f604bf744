"""A scripted HTTP server: the command line's tests connect to it over a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

LONGEST_WAIT = 5.0  # seconds


@dataclass(frozen=True)
class Reply:
    """JSON with a status, or server-sent events.

    Among the events a string is sent as it is, and a `threading.Event` is waited for.
    """

    body: Any = None
    status: int = 200
    events: list[Any] | None = None


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedServer:
    """Answers each "METHOD /path" with its reply, or with the result of a function of the request."""

    routes: dict[str, Reply | Callable[[Received], Reply]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    client_left: threading.Event = field(default_factory=threading.Event)  # in the middle of a stream
    url: str = ""

    def answers(self, route: str, reply: Any) -> Self:
        self.routes[route] = reply if isinstance(reply, Reply) or callable(reply) else Reply(reply)
        return self

    def refuses(self, route: str, status: int, message: str) -> Self:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "x"}
        return self.answers(route, Reply({"error": error}, status))

    def bodies(self, path: str) -> list[Any]:
        return [request.body for request in self.received if request.path == path]

    def reply_to(self, request: Received) -> Reply:
        self.received.append(request)
        reply = self.routes.get(f"{request.method} {request.path}", Reply({"error": {"message": "no route"}}, 404))
        return reply(request) if callable(reply) else reply


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    script = ScriptedServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    script.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield script
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(script: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_DELETE(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        do_PUT = do_PATCH = do_POST

        def _answer(self, body: Any) -> None:
            reply = script.reply_to(Received(self.command, self.path, dict(self.headers), body))
            self.send_response(reply.status)
            if reply.events is not None:
                self._stream(reply.events)
                return
            payload = json.dumps(reply.body).encode()
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def _stream(self, events: list[Any]) -> None:
            self.end_headers()
            try:
                for event in events:
                    self._send(event)
            except ConnectionError:
                script.client_left.set()

        def _send(self, event: Any) -> None:
            if isinstance(event, threading.Event):
                event.wait(LONGEST_WAIT)
            else:
                text = event if isinstance(event, str) else json.dumps(event)
                self.wfile.write(f"data: {text}\n\n".encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler
