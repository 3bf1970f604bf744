"""Presets: named sets of settings with their versions."""
