"""A test double of the Hugging Face hub: the real huggingface_hub client connects to it over real sockets.

As the hub does it: a search and a repository's facts as JSON, errors by their X-Error-Code, and files by a redirect
to an address elsewhere (here "localhost" rather than 127.0.0.1), which is signed and refuses a token.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 16 * 1024
LONGEST_WAIT = 20.0  # seconds that a held transfer waits for its test


@dataclass
class Repo:
    """One repository at one commit, and how it misbehaves."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: str | bool = False
    private: bool = False
    downloads: int = 100
    likes: int = 5
    tags: tuple[str, ...] = ("gguf", "license:apache-2.0")
    damaged: set[str] = field(default_factory=set)  # files that come with a wrong byte
    etags: dict[str, str] = field(default_factory=dict)  # in place of the digests


@dataclass
class Hub:
    """Tests fill `repos`, set faults, and read what was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str | None = None  # that opens private and gated repositories
    cut_after: list[int] = field(default_factory=list)  # bytes after which the next transfers break off, in turn
    hold_after: int | None = None  # bytes after which transfers wait for `released`
    ranges: bool = True  # whether range requests are supported
    status: int | None = None  # in place of every answer
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def transfers(self) -> list[str | None]:
        """The Range of every transfer, in turn."""
        return [headers.get("range") for method, path, headers in self.requests if "/cdn/" in path and method == "GET"]


@contextmanager
def hub_double() -> Iterator[Hub]:
    hub = Hub()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield hub
    finally:
        hub.released.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append((self.command, self.path, headers))
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            if hub.status is not None:
                self._refuse(hub.status)
            elif path == "/api/models":
                self._search(parse_qs(parts.query))
            elif path.startswith("/api/models/"):
                self._facts(path.removeprefix("/api/models/"))
            elif path.startswith("/cdn/"):
                self._transfer(path.removeprefix("/cdn/"), headers)
            else:
                self._resolve(path.lstrip("/"))

        def _search(self, query: dict[str, list[str]]) -> None:
            words, limit = query.get("search", [""])[0].lower(), int(query.get("limit", ["100"])[0])
            found = [(name, repo) for name, repo in hub.repos.items() if words in name.lower() and not repo.private]
            found.sort(key=lambda entry: -entry[1].downloads)
            self._json([_facts(name, repo) for name, repo in found[:limit]])

        def _facts(self, path: str) -> None:
            name, _, revision = path.partition("/revision/")
            if (repo := self._visible(name)) is None:
                return
            if revision and not repo.commit.startswith(revision) and revision != "main":
                self._refuse(404, "RevisionNotFound")
                return
            self._json({**_facts(name, repo), "siblings": [_sibling(*entry) for entry in repo.files.items()]})

        def _resolve(self, path: str) -> None:
            name, _, rest = path.partition("/resolve/")
            _, _, file = rest.partition("/")
            if (repo := self._visible(name)) is None:
                return
            if repo.gated and not self._has_token():
                self._refuse(401 if "authorization" not in self.headers else 403, "GatedRepo")
            elif file not in repo.files:
                self._refuse(404, "EntryNotFound")
            else:
                etag = repo.etags.get(file) or hashlib.sha256(repo.files[file]).hexdigest()
                self.send_response(302)
                self.send_header("Location", f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}/{file}?sig=x")
                self.send_header("X-Repo-Commit", repo.commit)
                self.send_header("X-Linked-ETag", f'"{etag}"')
                self.send_header("X-Linked-Size", str(len(repo.files[file])))
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _transfer(self, path: str, headers: dict[str, str]) -> None:
            if "authorization" in headers:
                self._refuse(400)  # as a signed URL does
                return
            user, name, file = path.split("/", 2)
            repo = hub.repos[f"{user}/{name}"]
            content = repo.files[file]
            if file in repo.damaged:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start = int(headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-")) if hub.ranges else 0
            if start >= len(content):
                self._refuse(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            with hub.lock:
                hub.at_once += 1
                hub.most_at_once = max(hub.most_at_once, hub.at_once)
                cut = hub.cut_after.pop(0) if hub.cut_after else len(content)
            try:
                self._send(content, start, cut)
            except OSError:
                self.close_connection = True
            finally:
                with hub.lock:
                    hub.at_once -= 1

        def _send(self, content: bytes, start: int, cut: int) -> None:
            at = start
            while at < len(content):
                if hub.hold_after is not None and at >= hub.hold_after and not hub.released.is_set():
                    hub.held.set()
                    hub.released.wait(LONGEST_WAIT)
                end = min(at + PIECE, len(content), max(cut, at))
                if end == at:
                    self.close_connection = True
                    return
                self.wfile.write(content[at:end])
                at = end

        def _visible(self, name: str) -> Repo | None:
            """The repository; the hub answers alike for one without access and for an unknown one."""
            repo = hub.repos.get(name)
            if repo is None or (repo.private and not self._has_token()):
                self._refuse(404 if self._has_token() else 401, "RepoNotFound")
                return None
            return repo

        def _has_token(self) -> bool:
            return hub.token is not None and self.headers.get("authorization") == f"Bearer {hub.token}"

        def _refuse(self, status: int, code: str = "") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _json(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


def _facts(name: str, repo: Repo) -> dict[str, Any]:
    return {
        "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
        "id": name,
        "modelId": name,
        "author": name.partition("/")[0],
        "sha": repo.commit,
        "lastModified": "2026-01-02T03:04:05.000Z",
        "private": repo.private,
        "gated": repo.gated,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "tags": list(repo.tags),
    }


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rfilename": path,
        "size": len(content),
        "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    if path.endswith(".gguf"):
        facts["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return facts
