"""`.venv-bench`: the peers' packages, apart from ours. Made at the first measurement, and when its list changes."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-bench"
PYTHON = HOME / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
MARK = HOME / "made-from"
INSTALL_SECONDS = 1800


def ensure_peer_environment() -> None:
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if MARK.exists() and MARK.read_text() == wanted:
        return
    print(f"Making {HOME.name} with the peers' packages, once; that takes about a minute ...", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(HOME))
    _run(str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS))
    _lend_llama_cpp()
    MARK.write_text(wanted)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)


def _lend_llama_cpp() -> None:
    """Our site-packages come after the venv's own: only what is missing there is taken, llama_cpp above all."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = HOME / "lib" / version / "site-packages"
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
