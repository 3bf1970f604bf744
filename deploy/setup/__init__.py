"""Makes a fresh machine ready: `.venv` from requirements.lock, with llama.cpp compiled for this machine.

Standard library only: it runs before anything is installed.
"""
