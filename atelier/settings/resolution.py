"""What overrides what: settings resolved field by field, with the origin of each value. Pure.

request → preset → the instance's own → the model's default → the file's metadata → built-in default
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from atelier.json_types import Json
from atelier.settings.declaration import SettingValue
from atelier.settings.groups import Inference, Load, Prompt
from atelier.settings.settings_table import TABLE, Setting, rows_of

if TYPE_CHECKING:  # a worker resolves no presets, and has no use for the models that validate them
    from atelier.settings.preset import Preset

G = TypeVar("G", Load, Prompt, Inference)

BUILT_IN = "built-in default"
MODEL_FILE = "model file"


@dataclass(frozen=True, slots=True)
class Layer:
    """Some settings and their origin, such as "request" or "preset precise". A value of None is unset."""

    origin: str
    values: Mapping[str, SettingValue | None]


@dataclass(frozen=True, slots=True)
class Value:
    value: SettingValue | None
    origin: str


@dataclass(frozen=True, slots=True)
class Resolved(Generic[G]):
    """Every setting of one group, by name."""

    kind: type[G]
    values: Mapping[str, Value]

    def build(self) -> G:
        """As the group's dataclass."""
        values: Json = {name: entry.value for name, entry in self.values.items()}
        return self.kind(**values)


def resolve(kind: type[G], layers: Iterable[Layer]) -> Resolved[G]:
    """Each setting from the first layer that sets it. Raises InvalidRequest for a value out of bounds."""
    stack = list(layers)
    return Resolved(kind, {row.name: _resolve_one(row, stack) for row in rows_of(kind).values()})


def _resolve_one(row: Setting, layers: list[Layer]) -> Value:
    for layer in layers:
        if (value := layer.values.get(row.name)) is not None:
            return Value(row.check(value), layer.origin)
    return Value(row.default, BUILT_IN)


def preset_layers(chosen: "Preset | None", default: "Preset | None") -> list[Layer]:
    """The load settings of the preset that the load names, then of the model's default preset."""
    layers = [Layer(chosen.origin, chosen.group("load"))] if chosen else []
    return layers + ([Layer(f"default {default.origin}", default.group("load"))] if default else [])


def load_settings(layers: Iterable[Layer], longest: int) -> Resolved[Load]:
    """An instance's load settings, for the registry that starts it and the gateway that previews them.

    `longest`: the context length in tokens that the model was trained for; 0 where its file does not say.
    """
    resolved = resolve(Load, [_with_draft_model_used(layer) for layer in _with_types_overridden(layers)])
    if extends_context(resolved.build()):
        return resolved
    length = _bounded(resolved.values["context_length"], longest)
    return Resolved(Load, {**resolved.values, "context_length": length})


def extends_context(load: Load) -> bool:
    """Whether the settings scale RoPE, so that a context may be longer than the trained one."""
    scaled = load.rope_scaling in ("linear", "yarn")
    return scaled or load.rope_freq_scale is not None or load.rope_freq_base is not None


def draft_load(load: Load) -> Load:
    """The settings with which a model's draft model is loaded: without those that concern the model's own file."""
    return replace(
        load,
        cpu_moe=False,
        cpu_moe_layers=0,
        override_tensor=[],
        num_experts=None,
        rope_freq_scale=None,
        rope_freq_base=None,
        yarn_original_context=None,
        yarn_ext_factor=None,
        yarn_beta_fast=None,
        yarn_beta_slow=None,
    )


def _with_draft_model_used(layer: Layer) -> Layer:
    """A layer that names a draft model, and does not set speculation, uses the draft model."""
    values = layer.values
    if values.get("draft_model") is None or values.get("speculation") is not None:
        return layer
    return Layer(layer.origin, {**values, "speculation": "draft_model"})


def _with_types_overridden(layers: Iterable[Layer]) -> Iterator[Layer]:
    """`kv_type` sets both types, so it overrides `k_type` and `v_type` of the layers below its own."""
    overridden = False
    for layer in layers:
        values = layer.values
        kept = {name: value for name, value in values.items() if name not in ("k_type", "v_type")}
        yield Layer(layer.origin, kept) if overridden else layer
        overridden = overridden or values.get("kv_type") is not None


def _bounded(length: Value, longest: int) -> Value:
    """At most the context the model was trained for: presets and defaults are shared by many models."""
    if not isinstance(length.value, int) or not 0 < longest < length.value:
        return length
    return Value(max(longest, int(TABLE["load"]["context_length"].facts.minimum or 0)), MODEL_FILE)
