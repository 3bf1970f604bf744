"""The server's own settings, from `ATELIER_*` variables or the command line; and where things lie."""

import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from atelier.hosts import split_host

LONGEST_SOCKET_PATH = 100  # bytes; the kernel allows 107, and worker sockets have names of their own


class Config(BaseSettings):
    """One process's configuration. Every field is also an environment variable, `ATELIER_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="ATELIER_", frozen=True, extra="ignore")

    home: Path = Field(Path("~/.atelier"), description="Where models, the database and logs lie.")

    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(1234, ge=0, le=65535, description="Port the gateway listens on.")
    cors: Annotated[list[str], NoDecode] = Field(
        [], description='Origins that web pages may call from, by commas; "*" for all. Empty: off.'
    )
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="Further names in the Host header that are answered, by commas."
    )
    api_key: SecretStr | None = Field(None, description="Key that every request must carry, where set.")
    allow_open: bool = Field(False, description="Listen beyond this machine without a key.")
    body_limit_mb: float = Field(32, gt=0, description="Largest request body, in MiB.")
    fetch_images: bool = Field(True, description="Fetch images that requests name by URL, from public addresses.")
    outbound_hosts: Annotated[list[str], NoDecode] = Field(
        [],
        description="Hosts (name or name:port), by commas, that requests may have something fetched from although "
        "their addresses are not public, or their ports not the usual ones.",
    )
    mcp_requests: bool = Field(False, description="Let requests name MCP servers of their own, at public addresses.")
    mcp_steps: int = Field(
        16, ge=2, description="Times that a model may write in one answer that calls tools of MCP servers."
    )
    mcp_seconds: float = Field(
        300, gt=0, description="Seconds after which an answer calls no more tools of MCP servers."
    )
    mcp_result_kb: float = Field(
        256, gt=0, description="Text of one result of an MCP server's tool that a model gets, in KiB; more is cut."
    )
    mcp_idle: float = Field(
        600, gt=0, description="Seconds without use after which the connection to an MCP server is closed."
    )
    mcp_elicitation: float = Field(
        300, gt=0, le=3600, description="Seconds that users may take to answer what an MCP server asks during one call."
    )
    max_queued: int = Field(256, ge=0, description="Requests in work or waiting per gateway before it answers 503.")
    queue_timeout: float | None = Field(
        None,
        gt=0,
        description="Seconds that a request may wait for its turn at a model before it gets 503.",
    )
    embedding_encoding: Literal["as_asked", "float"] = Field(
        "as_asked",
        description="How vectors are written: as requests ask for them, or as numbers also where base64 is asked for, "
        "for clients that ask for base64 and cannot read it.",
    )
    load_on_demand: bool = Field(True, description="Load a model when a request names it.")
    idle_ttl: float = Field(
        3600,
        ge=0,
        description="Seconds without work after which a model that a request loaded is unloaded; 0: never.",
    )
    guardrail: Literal["off", "relaxed", "balanced", "strict", "custom"] = Field(
        "balanced",
        description="How much of main memory and of each GPU's memory loads leave free: off does not ask, relaxed "
        "none, balanced a twentieth, strict a seventh, custom what guardrail_mb says. Where it is not enough, idle "
        "models that requests loaded go.",
    )
    guardrail_mb: int = Field(
        0, ge=0, description="MiB of main memory that loads leave free, with the guardrail custom."
    )
    room_timeout: float = Field(
        60, ge=0, description="Seconds that a load waits for busy models, which requests loaded, to make room for it."
    )
    shutdown_grace: float = Field(30, ge=0, description="Seconds that running requests get when the server stops.")

    response_days: float = Field(
        30, gt=0, le=3650, description="Days for which responses are kept that clients ask for again, or continue."
    )
    response_limit_mb: float = Field(
        1024, gt=0, description="MiB that they may take together; beyond it those unused for longest go."
    )

    registry_address: str = Field("", description="gRPC address of the registry; empty: the socket in the home.")
    registry_token: SecretStr | None = Field(None, description="Token that callers of the registry must present.")
    rpc_servers: Annotated[list[str], NoDecode] = Field(
        [],
        description="Addresses (host:port) of llama.cpp RPC servers, by commas: the devices rpc:0, rpc:1, ... "
        "Whoever can reach such a server can use it; and it can do what it likes with what is sent to it.",
    )
    engine: Literal["llama", "scripted"] = Field("llama", description="Engine of the workers; scripted is for tests.")
    script: str = Field("", description="What the scripted engine does, as JSON; for tests.")
    worker_grace: float = Field(60, ge=1, description="Seconds after which a worker without a registry ends itself.")
    load_timeout: float = Field(600, gt=0, description="Seconds that a model may take to load.")
    stall_timeout: float = Field(20, gt=0, description="Seconds without a sign of life before a worker is passed over.")
    restart_limit: int = Field(5, ge=0, description="Crashes in a row before an instance is given up.")

    spare_worker: bool = Field(
        True,
        description="Keep a process ready for the next load, which begins sooner for about 60 MB of memory.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @field_validator("cors", "allowed_hosts", "outbound_hosts", "rpc_servers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("outbound_hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        for entry in value:
            split_host(entry)
        return value

    @field_validator("api_key", "registry_token")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value() else None

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def mcp_file(self) -> Path:
        """The MCP servers whose tools models use."""
        return self.home / "mcp.json"

    @property
    def database_path(self) -> Path:
        return self.home / "registry.db"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def cache_dir(self) -> Path:
        """Saved KV cache of prompts, a directory for each instance."""
        return self.home / "cache"

    @cached_property
    def run_dir(self) -> Path:
        """Private directory for sockets; a short one elsewhere when the home's path is too long for a socket."""
        inside = self.home / "run"
        if len(os.fsencode(inside)) + len("/worker-00000000.sock") <= LONGEST_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"atelier-{os.getuid()}-{digest}"

    @property
    def registry_target(self) -> str:
        return self.registry_address or f"unix:{self.run_dir / 'registry.sock'}"


def make_private(directory: Path) -> Path:
    """Create the directory for this user alone; PermissionError when someone else owns it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    info = directory.lstat()
    if info.st_uid != os.getuid() or directory.is_symlink():
        raise PermissionError(f"{directory} belongs to another user: set ATELIER_HOME to a directory of your own")
    directory.chmod(0o700)
    return directory
