"""Commands whose output goes to a log file, is followed while they run, and is explained when they fail."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from deploy.setup import SetupError

_HINTS = (
    (r"no space left on device", "the disk is full: free some space and run `make setup` again"),
    (
        r"killed signal|signal terminated program|out of memory|cannot allocate memory",
        "memory ran out: run `CMAKE_BUILD_PARALLEL_LEVEL=1 make setup`",
    ),
    (
        r"do not match the hashes",
        "a download does not match its hash in requirements.lock: check the package index in use",
    ),
    (
        r"name resolution|name or service not known|connection|timed out|no matching distribution|proxyerror",
        "the package index is not reachable: check the network or PIP_INDEX_URL, then run `make setup` again",
    ),
    (r"which is not installed|has requirement", "pyproject.toml and requirements.lock differ: run `make lock`"),
)


class CommandFailed(SetupError):
    def __init__(self, log: Path) -> None:
        self.lines = log.read_text(errors="replace").splitlines()
        super().__init__(f"{explain_failure(self.lines)}\nComplete log: {log}")


def explain_failure(lines: Sequence[str], shown: int = 30) -> str:
    """The end of the log, the first error if it is further up, and what to do next."""
    end = lines[-shown:]
    first_error = next((line for line in lines if re.search(r"\berror:", line)), None)
    above = [first_error, "    ..."] if first_error and first_error not in end else []
    hint = hint_for("\n".join(lines))
    return "\n".join([line[:200] for line in [*above, *end]] + [f"What to do: {hint}"])


def hint_for(output: str) -> str:
    hints = (hint for pattern, hint in _HINTS if re.search(pattern, output, re.IGNORECASE))
    return next(hints, "read the first error above; if it concerns the GPU, run `ATELIER_BACKEND=cpu make setup`")


def run(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    follow: Callable[[list[str]], None] = lambda _: None,
) -> None:
    """Run `command`, and pass its new lines to `follow` several times a second. Raises CommandFailed."""
    with log.open("w") as sink, log.open(errors="replace") as source:
        # Its own process group, so that an interrupt also ends the compilers, and lets pip remove its folders.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            _follow(process, source, follow)
        except BaseException:
            _interrupt(process)
            raise
    if process.returncode:
        raise CommandFailed(log)


def _follow(process: "subprocess.Popen[bytes]", source: TextIO, follow: Callable[[list[str]], None]) -> None:
    unfinished = ""
    while process.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.25)
        *lines, unfinished = (unfinished + source.read()).split("\n")
        follow(lines)


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
