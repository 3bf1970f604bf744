"""The real model, downloaded once per machine and kept outside the tests' homes."""

from pathlib import Path

from registry.starter_model import NAME, ensure_starter
from tests.support.models.cache_folder import cache_folder


def starter_file() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, in the user's cache."""
    cache = cache_folder("starter")
    ensure_starter(cache)
    return cache / NAME
