"""Checks of the sources that ruff and mypy do not make."""
