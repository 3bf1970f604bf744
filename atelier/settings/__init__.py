"""Every setting, declared once; validation, resolution, wire and schemas derive from here."""

from atelier.settings.groups import Inference, Load, Prompt
from atelier.settings.resolve import Layer, Resolved, resolve
from atelier.settings.table import TABLE, Group, Setting

__all__ = [
    "TABLE",
    "Group",
    "Inference",
    "Layer",
    "Load",
    "Prompt",
    "Resolved",
    "Setting",
    "resolve",
]
