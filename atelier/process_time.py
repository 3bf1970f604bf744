"""When a process began, by which it is told from a later one with the same number."""

import subprocess
from pathlib import Path


def start_time(pid: int) -> str | None:
    """When the process began, in the system's own terms; None when there is none.

    With it, a process is told from a later one that was given the same number.
    """
    try:
        # after the name, which may hold anything, in brackets: the 22nd field of proc(5)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return None if Path("/proc/self").exists() else _start_time_of_ps(pid)
    except (OSError, IndexError):
        return None


def _start_time_of_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
