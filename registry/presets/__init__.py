"""Presets: named sets of settings, version by version, and which of them a model uses by default."""
