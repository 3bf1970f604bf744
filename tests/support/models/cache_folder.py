"""Where model files for tests and measurements are kept: in the user's cache, outside the tests' homes."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A folder of this project's in the user's cache; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lm-atelier" / name
