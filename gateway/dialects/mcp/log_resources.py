"""The log files of this machine's home: those that lie there, by name."""

from pathlib import Path

from atelier.json_types import Json
from atelier.log_file import tail

SHOWN_BYTES = 64 * 2**10  # of a log's end


class Logs:
    """Reads files. A name is looked up among those that are there: no client's words become a path."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        return sorted(self._files())

    def all(self) -> Json:
        told = [(name, path.stat()) for name, path in sorted(self._files().items())]
        return {
            "logs": [{"name": name, "size_bytes": info.st_size, "changed_at": info.st_mtime} for name, info in told]
        }

    def one(self, name: str) -> Json | None:
        """Its last lines; None where there is no such log."""
        path = self._files().get(name)
        return None if path is None else {"name": name, "lines": tail(path, most=SHOWN_BYTES)}

    def _files(self) -> dict[str, Path]:
        """By name without the suffix. A link could lead anywhere: it is none."""
        return {path.stem: path for path in self._directory.glob("*.log") if path.is_file() and not path.is_symlink()}
