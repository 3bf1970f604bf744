"""`atelier serve` as a user starts it: real processes, a separate home, a free port."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import psutil

from registry.starter_model import FOLDER, NAME

ATELIER = Path(sys.executable).with_name("atelier")
MODEL = "smollm2-135m-instruct"
KEY = f"huggingfacetb/{MODEL}"
START_SECONDS = 60
STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    home: Path
    process: "subprocess.Popen[str]"

    def tree(self) -> list[psutil.Process]:
        """`serve` and every process under it."""
        serve = psutil.Process(self.process.pid)
        return [serve, *serve.children(recursive=True)]

    def instances(self) -> list[dict[str, Any]]:
        reply = httpx.get(f"{self.url}/api/v1/instances", timeout=10).raise_for_status()
        return list(reply.json()["instances"])

    def atelier(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a verb of the command line against this server."""
        environment = {**os.environ, "ATELIER_URL": self.url}
        return subprocess.run(
            [str(ATELIER), *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def put_starter(home: Path, model: Path) -> None:
    """Give a home the starter model, without a copy where the file system allows it."""
    folder = home / FOLDER
    folder.mkdir(parents=True)
    try:
        (folder / NAME).hardlink_to(model)
    except OSError:
        (folder / NAME).symlink_to(model)


@contextmanager
def serving(home: Path, *options: str, variables: Mapping[str, str] = MappingProxyType({})) -> Iterator[Server]:
    """A server that has said it is ready; nothing of it is left afterwards. `variables`: of its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    environment.update(variables)
    process = subprocess.Popen(
        [str(ATELIER), "serve", "--home", str(home), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    tree: list[psutil.Process] = []
    try:
        server = Server(_ready_url(process), home, process)
        yield server
        if process.poll() is None:
            tree = server.tree()
            server.stop()
    finally:
        _end(process, tree)


def _ready_url(process: "subprocess.Popen[str]") -> str:
    """The address that the server announces. Its output is passed on to standard error."""
    assert process.stdout is not None
    announced: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            if line.startswith("Ready at "):
                announced.append(line.removeprefix("Ready at ").strip())
                ready.set()
        ready.set()
        process.stdout.close()

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(START_SECONDS) or not announced:
        raise RuntimeError("The server did not start.")
    return announced[0]


def _end(process: "subprocess.Popen[str]", tree: list[psutil.Process]) -> None:
    if process.poll() is None:
        tree = tree or [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(tree, timeout=10)
    for survivor in left:
        survivor.kill()
