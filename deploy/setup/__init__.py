"""Prepares a fresh machine: `.venv` from requirements.lock, with llama.cpp compiled for this machine.

It uses the standard library only, as nothing is installed yet.
"""


class SetupError(Exception):
    """Set-up cannot continue. The message says why and what to do next."""
