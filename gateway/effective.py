"""Which settings a request comes to, and where each comes from. Pure.

request → preset that it names → the instance's own → the model's default preset → the model's file → built-in default
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier.errors import InvalidRequest, PresetNotFound
from atelier.names import near_hint
from atelier.settings import BUILT_IN, Inference, Layer, Prompt, Resolved, Value, resolve
from atelier.settings.preset import Preset, Settings
from atelier.settings.table import TABLE
from gateway.snapshot import Instance, Model, Snapshot


@dataclass(frozen=True, slots=True)
class Effective:
    """Every prompt and inference setting, with its origin."""

    prompt: Resolved[Prompt]
    inference: Resolved[Inference]

    @property
    def values(self) -> dict[str, Value]:
        return {**self.prompt.values, **self.inference.values}


def effective(layers: list[Layer]) -> Effective:
    """InvalidRequest when the strongest value of a setting is out of its bounds."""
    return Effective(resolve(Prompt, layers), resolve(Inference, layers))


def layers_of(
    requested: Mapping[str, Any], preset: Preset | None, default: Preset | None, model: Model, instance: Instance | None
) -> list[Layer]:
    """The strongest first. `instance`: None while it is not known which one answers."""
    layers = [Layer("request", requested)]
    if preset is not None:
        layers.append(Layer(preset.origin, _flat(preset.settings)))
    if instance is not None:
        named = f" with preset {instance.preset}" if instance.preset else ""
        layers.append(Layer(f"instance {instance.id}{named}", _flat(instance.own)))
    if default is not None:
        layers.append(Layer(f"default {default.origin}", _flat(default.settings)))
    return [*layers, Layer("model file", model.sampling_defaults)]


def find_preset(name: str | None, model: Model, snapshot: Snapshot) -> Preset | None:
    """The preset that a request names; PresetNotFound, InvalidRequest when it is meant for another model."""
    if name is None:
        return None
    if (preset := snapshot.presets.get(name)) is None:
        raise PresetNotFound(
            f'preset: there is none called "{name[:100]}".{near_hint(name, snapshot.presets)}', param="preset"
        )
    if preset.model not in (None, model.key):
        raise InvalidRequest(f'preset: "{name}" is meant for {preset.model}, not for {model.key}', param="preset")
    return preset


def default_preset(model: Model, snapshot: Snapshot) -> Preset | None:
    return snapshot.presets.get(model.default_preset)


def load_values(
    model: Model, instance: Instance | None, preset: Preset | None, default: Preset | None
) -> dict[str, Value]:
    """The load settings of an instance that runs, or of the next one that is loaded with this preset."""
    if instance is not None:
        return {
            name: Value(instance.load.get(name, row.default), instance.load_origins.get(name, BUILT_IN))
            for name, row in TABLE["load"].items()
        }
    layers = [Layer(preset.origin, preset.group("load"))] if preset else []
    layers += [Layer(f"default {default.origin}", default.group("load"))] if default else []
    found: dict[str, Value] = {}
    for name, row in TABLE["load"].items():
        setting = next((layer for layer in layers if layer.values.get(name) is not None), None)
        found[name] = Value(setting.values[name], setting.origin) if setting else Value(row.default, BUILT_IN)
    return {**found, "context_length": _bounded(found["context_length"], model.max_context_length)}


def _bounded(length: Value, longest: int) -> Value:
    """No model is loaded with more context than it was trained for."""
    return Value(longest, "model file") if longest and length.value > longest else length


def _flat(settings: Settings) -> dict[str, Any]:
    """Prompt and inference settings in one: no two have one name."""
    return {**settings.get("prompt", {}), **settings.get("inference", {})}
