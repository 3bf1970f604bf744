"""What a worker receives at its launch: a private file that the launcher writes and the worker reads.

A standby worker first receives an order, one line on its standard input, which says where that file is.
"""

import dataclasses
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from atelier.json_types import Json
from atelier.lora_adapters import Adapter
from atelier.settings.groups import Load

RPC_SERVERS = "ATELIER_RPC_SERVERS"
"""Variable with the RPC servers whose devices a worker is pinned to, or with all of them: host:port,..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One launch of one instance."""

    instance_id: str
    engine: str  # "llama" or "scripted"
    model_path: str
    projector_path: str | None = None  # file of the multimodal projector
    draft_model_path: str | None = None  # file of load.draft_model
    architecture: str = ""  # of the model
    load: Load
    address: str  # to listen on: unix:/path or host:port
    token: str
    grace_seconds: float  # without a registry and without requests, after which the worker exits
    cache_sized: bool = False  # load.cache_ram was chosen by the registry, and makes way for other models
    cache_dir: str = ""  # of this instance, for what outlives the worker; empty: none
    cores: list[int] = field(default_factory=list)  # CPU affinity; empty: inherited
    threads: int = 0  # default number of compute threads; 0: one for each physical core
    adapters: list[Adapter] = field(default_factory=list)
    script: Json = field(default_factory=dict)  # for the scripted engine


def write_spec(spec: LaunchSpec, path: Path) -> None:
    """Write the spec, readable by this user alone: it contains the launch's token."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dataclasses.asdict(spec), file)


def take_spec(path: Path) -> LaunchSpec:
    """Read the spec and remove its file. Raises FileNotFoundError when the launch was withdrawn.

    The reader first leaves a claim, so that a registry that did not launch it can find it.
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
    """The claim's path, beside the spec or the socket of the same launch."""
    return path.with_suffix(".claim")


def read_claim(path: Path) -> tuple[int, str] | None:
    """Pid and start time of the process that took the spec of this path; None when none did."""
    try:
        pid, _, started = claim_path(path).read_text().partition(" ")
        return int(pid), started
    except (FileNotFoundError, ValueError):
        return None


def start_time(pid: int) -> str | None:
    """When the process started, in the system's own units; None when it does not exist.

    It distinguishes the process from a later one with the same pid.
    """
    try:
        # Field 22 of proc_pid_stat(5). Counted from the last bracket: the name in brackets may contain anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _start_time_of_ps(pid)
    except (OSError, IndexError):
        return None


def _start_time_of_ps(pid: int) -> str | None:
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip() or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a standby worker cannot have inherited."""

    spec: str  # path of the spec's file
    environment: dict[str, str]  # pins it to its devices; set before any device is opened
    log: str  # path of its log file


def order_line(order: Order) -> bytes:
    return json.dumps(dataclasses.asdict(order)).encode() + b"\n"


def read_order(line: bytes) -> Order:
    return Order(**json.loads(line))
