"""The load settings of an instance: what was asked for, what the model allows, what is usual."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import InvalidRequest, ModelNotFound
from atelier.settings import Layer, Load
from atelier.settings.load_resolution import load_settings
from registry.devices.placement import Need
from registry.instances.preset_layers import PresetLayers
from registry.models.memory_estimate import Estimate, estimate_memory
from registry.models.model_record import Model

NO_PRESETS = PresetLayers()

Find = Callable[[str], Model]
"""The model that a name means; ModelNotFound."""


@dataclass(frozen=True, slots=True)
class ResolvedLoad:
    """The settings that an instance starts with, where each comes from, and the model that guesses ahead for it."""

    load: Load
    origins: dict[str, str]
    draft: Model | None


def resolve_load(
    model: Model, requested: Mapping[str, Any], find: Find, presets: PresetLayers = NO_PRESETS
) -> ResolvedLoad:
    """InvalidRequest names the setting that cannot be; ModelNotFound."""
    longest = model.facts.context_length
    wanted = requested.get("context_length")
    if longest and wanted is not None and wanted > longest:
        raise InvalidRequest(
            f"context_length is at most {longest} for {model.key}, not {wanted}.", param="context_length"
        )
    resolved = load_settings([Layer("request", requested), *presets.load], longest)
    load = resolved.build()
    draft = _draft(load, find)
    origins = {name: value.origin for name, value in resolved.values.items()}
    return ResolvedLoad(replace(load, draft_model=draft.key if draft else None), origins, draft)


def estimate_for(
    model: Model, requested: Mapping[str, Any], find: Find, presets: PresetLayers = NO_PRESETS
) -> Estimate:
    """The memory of an instance with these settings; raises as when it would be started."""
    resolved = resolve_load(model, requested, find, presets)
    return _whole(model, resolved)


def need_of(model: Model, resolved: ResolvedLoad) -> Need:
    """What such an instance will take, wherever it is put."""
    return Need(_whole(model, resolved), model.facts.layers)


def _whole(model: Model, resolved: ResolvedLoad) -> Estimate:
    """With what is loaded beside the model: its projector, and the model that guesses ahead for it."""
    whole = _estimate(model, resolved.load)
    if model.projector:
        whole += Estimate(model.projector.size, 0, 0)
    return whole + _estimate(resolved.draft, resolved.load) if resolved.draft else whole


def _estimate(model: Model, load: Load) -> Estimate:
    assert model.facts.shape is not None  # the catalogue reads old models' headers anew
    return estimate_memory(model.facts.shape, load, embeds_only=model.facts.embedding)


def _draft(load: Load, find: Find) -> Model | None:
    if load.draft_model is None:
        if load.speculation == "draft_model":
            raise InvalidRequest("speculation draft_model needs a draft_model: name one.", param="draft_model")
        return None
    if load.speculation != "draft_model":
        raise InvalidRequest(
            f"draft_model is used by speculation draft_model, not {load.speculation}: leave one of them out.",
            param="draft_model",
        )
    try:
        draft = find(load.draft_model)
    except ModelNotFound as error:
        raise ModelNotFound(f"draft_model: {error.message}", param="draft_model") from None
    if draft.facts.embedding:
        raise InvalidRequest(f"{draft.key} makes embeddings and cannot guess text.", param="draft_model")
    return draft
