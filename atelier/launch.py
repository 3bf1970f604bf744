"""What a worker is told when it is launched: a private file that the launcher writes and the worker reads.

A worker that was started ahead gets an order first, one line on its standard input: where that file is.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier.adapters import Adapter
from atelier.process_time import start_time
from atelier.settings.groups import Load

RPC_SERVERS = "ATELIER_RPC_SERVERS"
"""The variable that names the RPC servers whose devices a worker is pinned to, or all that there are: host:port,..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One launch of one instance."""

    instance_id: str
    engine: str  # "llama" or "scripted"
    model_path: str
    projector_path: str | None = None  # of what turns images into what the model reads
    draft_model_path: str | None = None  # of the model that load.draft_model names
    load: Load
    address: str  # to listen on: unix:/path or host:port
    token: str
    grace_seconds: float  # without a registry and without work, after which it ends itself
    cache_dir: str = ""  # this instance's own, for what outlasts the worker; empty: it has none
    cores: list[int] = field(default_factory=list)  # CPU affinity; empty: as inherited
    threads: int = 0  # of what computes with a fixed number, unless the load settings say; 0: one for each core
    adapters: list[Adapter] = field(default_factory=list)
    script: dict[str, Any] = field(default_factory=dict)  # for the scripted engine


def write_spec(spec: LaunchSpec, path: Path) -> None:
    """Write the spec for this user's eyes only: it holds the launch's token."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dataclasses.asdict(spec), file)


def take_spec(path: Path) -> LaunchSpec:
    """Read the spec and remove the file; FileNotFoundError when it was withdrawn.

    Who takes it leaves a claim first, so that it can be found by a registry that did not launch it.
    """
    data = json.loads(path.read_text())
    claim = claim_path(path)
    claim.write_text(f"{os.getpid()} {start_time(os.getpid())}")
    try:
        path.unlink()
    except FileNotFoundError:
        claim.unlink()
        raise
    adapters = [Adapter(**adapter) for adapter in data["adapters"]]
    return LaunchSpec(**{**data, "load": Load(**data["load"]), "adapters": adapters})


def claim_path(path: Path) -> Path:
    """Beside the spec, or the socket, of the same launch."""
    return path.with_suffix(".claim")


def read_claim(path: Path) -> tuple[int, str] | None:
    """Pid and start of the process that took the spec of this path; None when none did."""
    try:
        pid, _, started = claim_path(path).read_text().partition(" ")
        return int(pid), started
    except (FileNotFoundError, ValueError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a waiting process cannot have inherited."""

    spec: str  # the path of the spec's file
    environment: dict[str, str]  # pins it to its devices: set before any device is looked at
    log: str  # the path of the file that it writes to


def order_line(order: Order) -> bytes:
    return json.dumps(dataclasses.asdict(order)).encode() + b"\n"


def read_order(line: bytes) -> Order:
    return Order(**json.loads(line))
