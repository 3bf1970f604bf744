"""What `make` does, with stand-ins for the programs of .venv."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_server_starts_even_when_the_starter_model_cannot_be_fetched(tmp_path: Path) -> None:
    program(tmp_path / "python", "echo could not be fetched >&2; exit 1")
    program(tmp_path / "atelier", 'echo "atelier $*"')
    done = subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", "run", f"BIN={tmp_path}", "PYTHON=true"],
        capture_output=True,
        text=True,
        timeout=30,
        env={name: value for name, value in os.environ.items() if "MAKE" not in name},  # these tests may run in a make
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "atelier serve\n", "could not be fetched\n")
