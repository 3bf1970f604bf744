"""requirements.lock, taken apart: the one package that is compiled here, and all the others."""

import re
from dataclasses import dataclass

from deploy.setup.setup_error import SetupError


@dataclass(frozen=True)
class Pin:
    """One package of the lock; `text` is its lines, which pip takes as a requirements file of its own."""

    name: str
    version: str
    text: str


@dataclass(frozen=True)
class Lock:
    compiled: Pin
    others: str


def read_lock(text: str, compiled: str) -> Lock:
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)
    found = [block for block in blocks if block.startswith(f"{compiled}==")]
    if len(found) != 1:
        raise SetupError(f"requirements.lock has {len(found)} entries for {compiled}, not one: run `make lock`")
    version = found[0].split()[0].removeprefix(f"{compiled}==")
    return Lock(Pin(compiled, version, found[0]), "".join(block for block in blocks if block != found[0]))
