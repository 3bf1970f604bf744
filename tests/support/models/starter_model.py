"""The real model, downloaded once per machine and kept outside the tests' homes."""

import os
from pathlib import Path

from registry.starter_model import NAME, ensure_starter


def starter_file() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lm-atelier" / "starter"
    ensure_starter(cache)
    return cache / NAME
