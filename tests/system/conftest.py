"""The real model, fetched once a machine."""

import os
from pathlib import Path

import pytest

from registry.starter import NAME, ensure_starter


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The starter model's file: SmolLM2-135M-Instruct, Q4_1."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lm-atelier" / "starter"
    ensure_starter(cache)
    return cache / NAME
