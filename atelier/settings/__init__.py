"""Every setting, declared once; validation, resolution, wire and schemas derive from here."""

from atelier.settings.groups import Inference, Load, Prompt
from atelier.settings.resolution import BUILT_IN, MODEL_FILE, Layer, Resolved, Value, resolve
from atelier.settings.settings_table import TABLE, Group, Setting

__all__ = [
    "BUILT_IN",
    "MODEL_FILE",
    "TABLE",
    "Group",
    "Inference",
    "Layer",
    "Load",
    "Prompt",
    "Resolved",
    "Setting",
    "Value",
    "resolve",
]
