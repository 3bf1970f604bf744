"""Which model and which settings a request means. Pure.

Settings are resolved field by field, highest first:
request → preset that it names → the instance's own → the model's default preset → the model's file → built-in default
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from atelier.errors import InvalidRequest, ModelNotFound, PresetNotFound
from atelier.names import InstanceName, ModelName, find_name, near_hint
from atelier.settings import BUILT_IN, MODEL_FILE, Inference, Layer, Prompt, Resolved, Value, resolve
from atelier.settings.declaration import SettingValue
from atelier.settings.preset import Preset, Settings
from atelier.settings.resolution import load_settings, preset_layers
from atelier.settings.settings_table import TABLE
from gateway.core.call import Call, Origin
from gateway.fleet.snapshot import Instance, Model, Snapshot


@dataclass(frozen=True, slots=True)
class Effective:
    """Every prompt and inference setting, with its origin."""

    prompt: Resolved[Prompt]
    inference: Resolved[Inference]

    @property
    def values(self) -> dict[str, Value]:
        return {**self.prompt.values, **self.inference.values}


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A call whose names are resolved."""

    call: Call
    origin: Origin
    target: ModelName | InstanceName
    model: Model
    preset: Preset | None
    default: Preset | None  # the model's default preset
    settings: Effective  # on an instance that has none of its own
    images: Sequence[bytes] = ()  # the call's, once they are read

    @property
    def name(self) -> str:
        return reported_name(self.target)

    @property
    def choices(self) -> int:
        """Of all prompts together."""
        return self.call.choices * len(self.call.prompts)

    def effective(self, instance: Instance | None) -> Effective:
        """The settings that apply on this instance. Raises InvalidRequest where its own are out of bounds."""
        if instance is None or not _flat(instance.own):
            return self.settings
        return effective(layers_of(self.call.settings, self.preset, self.default, self.model, instance))


def make_plan(call: Call, origin: Origin, snapshot: Snapshot) -> CallPlan:
    """Raises ModelNotFound, PresetNotFound, and InvalidRequest for the model or a setting.

    The settings are resolved here, before it is known which instance answers: an invalid one must be rejected before a
    model is loaded for it.
    """
    target, model = find_target(call.model, snapshot)
    if model.embedding:
        raise InvalidRequest(f'"{model.key}" makes embeddings; it does not generate text.', param="model")
    if call.images and not model.made_for_vision:
        path = call.images[0].path
        raise InvalidRequest(f'{path}: "{model.key}" does not accept images; send text only.', param=path)
    preset, default = find_preset(call.preset, model, snapshot), default_preset(model, snapshot)
    settings = effective(layers_of(call.settings, preset, default, model, None))
    return CallPlan(call, origin, target, model, preset, default, settings)


def find_target(name: str, snapshot: Snapshot) -> tuple[ModelName | InstanceName, Model]:
    """The model or instance that a name means, and the model behind it. Raises ModelNotFound."""
    target = find_name(name, snapshot.models, snapshot.instances)
    if isinstance(target, ModelName):
        return target, snapshot.models[target.key]
    return target, snapshot.model_of(snapshot.instances[target.id])


def reported_name(target: ModelName | InstanceName) -> str:
    """The model's name in replies: its key, or the id of the instance that the request named."""
    return target.key if isinstance(target, ModelName) else target.id


def effective(layers: list[Layer]) -> Effective:
    """Raises InvalidRequest when the highest layer's value of a setting is out of bounds."""
    return Effective(resolve(Prompt, layers), resolve(Inference, layers))


def layers_of(
    requested: Mapping[str, SettingValue | None],
    preset: Preset | None,
    default: Preset | None,
    model: Model,
    instance: Instance | None,
) -> list[Layer]:
    """Highest first. `instance`: None while it is not known which one answers."""
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
    """The preset that a request names. Raises PresetNotFound; InvalidRequest when it is another model's."""
    if name is None:
        return None
    if (preset := snapshot.presets.get(name)) is None:
        hint = near_hint(name, snapshot.presets)
        raise PresetNotFound(f'preset: there is no preset "{name[:100]}".{hint}', param="preset")
    if preset.model not in (None, model.key):
        raise InvalidRequest(f'preset: "{name}" is for {preset.model}, not for {model.key}.', param="preset")
    return preset


def default_preset(model: Model, snapshot: Snapshot) -> Preset | None:
    return snapshot.presets.get(model.default_preset)


def load_values(
    model: Model, instance: Instance | None, preset: Preset | None, default: Preset | None, keys: Collection[str]
) -> dict[str, Value]:
    """The load settings of a running instance, or of the next one that is loaded with this preset.

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
    """With the model's key, as an instance has it. An unknown or ambiguous name stays: no load accepts it."""
    if isinstance(draft_model.value, str):
        with suppress(ModelNotFound):
            found = find_name(draft_model.value, keys, ())
            assert isinstance(found, ModelName)
            return Value(found.key, draft_model.origin)
    return draft_model


def _flat(settings: Settings) -> dict[str, SettingValue]:
    """Prompt and inference settings together: no two share a name."""
    return {**settings.get("prompt", {}), **settings.get("inference", {})}
