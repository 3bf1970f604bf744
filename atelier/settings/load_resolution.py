"""What the load settings of an instance come to. Pure.

For the registry, which starts it with them, and for the gateway, which shows them beforehand.
"""

from collections.abc import Iterable

from atelier.settings.groups import Load
from atelier.settings.preset import Preset
from atelier.settings.resolution import MODEL_FILE, Layer, Resolved, Value, resolve
from atelier.settings.settings_table import TABLE


def preset_layers(chosen: Preset | None, default: Preset | None) -> list[Layer]:
    """The load settings of the preset that somebody named, and of the model's default one, the stronger first."""
    layers = [Layer(chosen.origin, chosen.group("load"))] if chosen else []
    return layers + ([Layer(f"default {default.origin}", default.group("load"))] if default else [])


def load_settings(layers: Iterable[Layer], longest: int) -> Resolved[Load]:
    """`longest`: tokens of context that the model was trained for; 0 where its file does not say."""
    resolved = resolve(Load, [_meant(layer) for layer in layers])
    length = _bounded(resolved.values["context_length"], longest)
    return Resolved(Load, {**resolved.values, "context_length": length})


def _meant(layer: Layer) -> Layer:
    """Who names a draft model, and says nothing of speculation, wants it to be used."""
    values = layer.values
    if values.get("draft_model") is None or values.get("speculation") is not None:
        return layer
    return Layer(layer.origin, {**values, "speculation": "draft_model"})


def _bounded(length: Value, longest: int) -> Value:
    """No model is loaded with more context than it was trained for: presets and defaults are for many models."""
    if not 0 < longest < length.value:
        return length
    return Value(max(longest, int(TABLE["load"]["context_length"].facts.minimum or 0)), MODEL_FILE)
