"""Which settings a request comes to, and where each comes from. Pure.

request → preset that it names → the instance's own → the model's default preset → the model's file → built-in default
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from atelier.errors import InvalidRequest, ModelNotFound, PresetNotFound
from atelier.names import ModelName, find_name, near_hint
from atelier.settings import BUILT_IN, MODEL_FILE, Inference, Layer, Prompt, Resolved, Value, resolve
from atelier.settings.load_resolution import load_settings, preset_layers
from atelier.settings.preset import Preset, Settings
from atelier.settings.settings_table import TABLE
from gateway.fleet.snapshot import Instance, Model, Snapshot


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
    return [*layers, Layer(MODEL_FILE, model.sampling_defaults)]


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
    model: Model, instance: Instance | None, preset: Preset | None, default: Preset | None, keys: Collection[str]
) -> dict[str, Value]:
    """The load settings of an instance that runs, or of the next one that is loaded with this preset.

    `keys`: of all models, one of which a preset may name as draft model.
    """
    if instance is not None:
        return {
            name: Value(instance.load.get(name, row.default), instance.load_origins.get(name, BUILT_IN))
            for name, row in TABLE["load"].items()
        }
    found = load_settings(preset_layers(preset, default), model.max_context_length).values
    return {**found, "draft_model": _in_full(found["draft_model"], keys)}


def _in_full(draft_model: Value, keys: Collection[str]) -> Value:
    """By its key, as an instance has it. What means no model, or several, is shown as it is: no load takes it."""
    if draft_model.value is not None:
        with suppress(ModelNotFound):
            found = find_name(draft_model.value, keys, ())
            assert isinstance(found, ModelName)
            return Value(found.key, draft_model.origin)
    return draft_model


def _flat(settings: Settings) -> dict[str, Any]:
    """Prompt and inference settings in one: no two have one name."""
    return {**settings.get("prompt", {}), **settings.get("inference", {})}
