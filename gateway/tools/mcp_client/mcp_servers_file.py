"""The operator's MCP servers, from `mcp.json`."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from atelier.mcp_file import Entry, WrongFile, entries_of, read_document
from gateway.core.mcp_server_config import APPROVALS, Approval, Command, Endpoint, ServerConfig, Servers, Use

_log = structlog.get_logger(__name__)


class ServersFile:
    """Reads the file again when it has changed. While the file is invalid, the last valid content applies."""

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, str] = os.environ,
        on_read: Callable[[Servers], None] = lambda servers: None,
    ) -> None:
        """`environment`: the variables that the file may refer to. `on_read`: called each time the file is read."""
        self._path = path
        self._on_read = on_read
        self._environment = environment
        self._version: tuple[int, ...] | None = None
        self._servers: Servers = {}
        self.disabled: frozenset[str] = frozenset()
        self.error: str | None = None  # what is wrong with the current file

    def servers(self) -> Servers:
        """By label, without those that are disabled."""
        version = self._stat()
        if version != self._version:
            self._version = version
            self._read()
        return self._servers

    def _stat(self) -> tuple[int, ...]:
        """Differs whenever the file does."""
        try:
            info = self._path.stat()
        except OSError:
            return ()
        return info.st_ino, info.st_size, info.st_mtime_ns

    def _read(self) -> None:
        try:
            entries = entries_of(read_document(self._path), self._environment)
        except (WrongFile, OSError) as error:
            self.error = (error.strerror or "it cannot be read") if isinstance(error, OSError) else str(error)
            _log.error("mcp_file_wrong", file=str(self._path), reason=self.error)
            return
        self.error = None
        self._servers = {label: use_of(label, entry) for label, entry in entries.items() if not entry.disabled}
        self.disabled = frozenset(entries.keys() - self._servers.keys())
        _log.info("mcp_file_read", servers=list(self._servers))
        self._on_read(self._servers)


def use_of(label: str, entry: Entry) -> Use:
    """The server of one entry, with the limits on its use."""
    server = ServerConfig(
        label,
        _reach(entry),
        call_seconds=entry.timeout,
        sampling_model=entry.sampling,
        elicitation=entry.elicitation,
    )
    allowed = None if entry.allowed_tools is None else frozenset(entry.allowed_tools)
    return Use(server, allowed, _approval(entry))


def _reach(entry: Entry) -> Command | Endpoint:
    if entry.url is not None:
        return Endpoint(entry.url, tuple(entry.headers.items()))
    assert entry.command is not None
    cwd = None if entry.cwd is None else str(Path(entry.cwd).expanduser())
    return Command(entry.command, tuple(entry.args), tuple(entry.env.items()), cwd)


def _approval(entry: Entry) -> Approval:
    setting = entry.require_approval
    return APPROVALS[setting] if isinstance(setting, str) else Approval(frozenset(setting))
