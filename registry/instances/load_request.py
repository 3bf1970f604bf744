"""The load settings of an instance, from what was requested, its presets and its model; and the memory they take."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from atelier.errors import InvalidRequest, ModelNotFound
from atelier.json_types import Json
from atelier.settings import Layer, Load
from atelier.settings.preset import Preset, Settings, settings_from_json, settings_json
from atelier.settings.resolution import draft_load, load_settings, preset_layers
from atelier.tensor_placement import tensor_overrides
from registry.devices.placement import MemoryNeed
from registry.models.memory_estimate import Estimate, estimate_memory
from registry.models.model_record import Model

UNQUANTISED = ("f32", "f16", "bf16")  # types of the KV cache
FindModel = Callable[[str], Model]
"""The model that a name means. Raises ModelNotFound."""


@dataclass(frozen=True, slots=True)
class PresetLayers:
    """The presets below an instance's requested settings, as they were when it was loaded.

    They are stored with it: a preset changed later affects no running instance, and no restart of one.
    `chosen` was named when the instance was loaded; `default` is the model's.
    """

    chosen: Preset | None = None
    default: Preset | None = None

    @property
    def load(self) -> list[Layer]:
        """Their load settings, the stronger first."""
        return preset_layers(self.chosen, self.default)

    @property
    def own(self) -> Settings:
        """Defaults for requests to the instance."""
        if self.chosen is None:
            return {}
        return {group: values for group, values in self.chosen.settings.items() if group != "load"}

    def to_json(self) -> Json:
        return {"chosen": _preset_json(self.chosen), "default": _preset_json(self.default)}

    @classmethod
    def from_json(cls, values: Json | None) -> "PresetLayers":
        return cls(_read_preset(values.get("chosen")), _read_preset(values.get("default"))) if values else cls()


def _preset_json(preset: Preset | None) -> Json | None:
    if preset is None:
        return None
    return {"name": preset.name, "version": preset.version, "settings": orjson.loads(settings_json(preset.settings))}


def _read_preset(values: Json | None) -> Preset | None:
    if values is None:
        return None
    settings = settings_from_json(orjson.dumps(values["settings"]))
    return Preset(name=values["name"], version=values["version"], settings=settings)


@dataclass(frozen=True, slots=True)
class ResolvedLoad:
    """The settings that an instance starts with, the origin of each, and its draft model."""

    load: Load
    origins: dict[str, str]
    draft: Model | None


def resolve_load(model: Model, requested: Json, find: FindModel, presets: PresetLayers) -> ResolvedLoad:
    """Raises InvalidRequest, which names the setting, and ModelNotFound for the draft model."""
    resolved = load_settings([Layer("request", requested), *presets.load], model.facts.context_length)
    load = resolved.build()
    _check_length(model, requested, load)
    _check_cache_types(load)
    _check_experts(model, load)
    tensor_overrides(load)  # raises for a malformed one
    draft = _draft_model(load, find)
    origins = {name: value.origin for name, value in resolved.values.items()}
    return ResolvedLoad(replace(load, draft_model=draft.key if draft else None), origins, draft)


def _check_length(model: Model, requested: Json, load: Load) -> None:
    """Raises InvalidRequest if more was requested than the settings resolve to; a preset's length is reduced."""
    wanted = requested.get("context_length")
    if wanted is not None and wanted > load.context_length:
        raise InvalidRequest(
            f"context_length is at most {load.context_length} for {model.key}, not {wanted}: choose that, or set "
            "rope_scaling (yarn or linear) to exceed what the model was trained for.",
            param="context_length",
        )


def _check_cache_types(load: Load) -> None:
    """Raises InvalidRequest: without flash attention, llama.cpp reads values that are not quantised only."""
    name, values = ("kv_type", load.kv_type) if load.v_type is None else ("v_type", load.v_type)
    if load.flash_attention is False and values not in UNQUANTISED:
        raise InvalidRequest(
            f"{name} {values} requires flash attention for the values: omit flash_attention, or set v_type f16.",
            param=name,
        )


def _check_experts(model: Model, load: Load) -> None:
    """Raises InvalidRequest if the model cannot use this number of experts: llama.cpp would abort its process."""
    shape = model.facts.shape
    assert shape is not None
    if load.num_experts is None:
        return
    if not shape.experts:
        raise InvalidRequest(f"{model.key} is not a mixture of experts: leave out num_experts.", param="num_experts")
    if len(shape.experts_used) != 1:
        raise InvalidRequest(
            f"The layers of {model.key} have numbers of experts of their own: leave out num_experts.",
            param="num_experts",
        )
    if load.num_experts > shape.experts:
        raise InvalidRequest(
            f"num_experts is at most {shape.experts} for {model.key}, not {load.num_experts}.", param="num_experts"
        )


def need_of(model: Model, resolved: ResolvedLoad) -> MemoryNeed:
    """What such an instance takes, wherever it is placed."""
    return MemoryNeed(instance_memory(model, resolved), model.facts.layers)


def instance_memory(model: Model, resolved: ResolvedLoad) -> Estimate:
    """With what is loaded beside the model: its projector and its draft model."""
    whole = _model_memory(model, resolved.load)
    if model.projector:
        whole += Estimate(model.projector.size, 0, 0)
    return whole + _model_memory(resolved.draft, draft_load(resolved.load)) if resolved.draft else whole


def _model_memory(model: Model, load: Load) -> Estimate:
    assert model.facts.shape is not None  # the catalogue reads the headers of older records again
    return estimate_memory(model.facts.shape, load, embeds_only=model.facts.embedding)


def _draft_model(load: Load, find: FindModel) -> Model | None:
    if load.draft_model is None:
        if load.speculation == "draft_model":
            raise InvalidRequest("speculation draft_model requires a draft_model: name one.", param="draft_model")
        return None
    if load.speculation != "draft_model":
        raise InvalidRequest(
            f"draft_model requires speculation draft_model, not {load.speculation}: omit one of the two.",
            param="draft_model",
        )
    try:
        draft = find(load.draft_model)
    except ModelNotFound as error:
        raise ModelNotFound(f"draft_model: {error.message}", param="draft_model") from None
    if draft.facts.embedding:
        raise InvalidRequest(f"{draft.key} is an embedding model and cannot draft text.", param="draft_model")
    return draft
