"""The load settings of an instance: what was asked for, what the model allows, what is usual."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from atelier.errors import InvalidRequest, ModelNotFound
from atelier.settings import TABLE, Layer, Load, resolve
from registry.models.estimate import Estimate, estimate_memory
from registry.models.model import Model

Find = Callable[[str], Model]
"""The model that a name means; ModelNotFound."""


def resolve_load(model: Model, requested: Mapping[str, Any], find: Find) -> tuple[Load, Model | None]:
    """The settings that an instance starts with, and the model that guesses ahead for it.

    InvalidRequest names the setting that cannot be; ModelNotFound.
    """
    longest = model.facts.context_length
    wanted = requested.get("context_length")
    if longest and wanted is not None and wanted > longest:
        raise InvalidRequest(
            f"context_length is at most {longest} for {model.key}, not {wanted}.", param="context_length"
        )
    layers = [
        Layer("request", requested),
        Layer("draft_model", _meant(requested)),
        Layer("model file", _of_file(longest)),
    ]
    load = resolve(Load, layers).build()
    draft = _draft(load, find)
    return replace(load, draft_model=draft.key if draft else None), draft


def estimate_for(model: Model, requested: Mapping[str, Any], find: Find) -> Estimate:
    """The memory of an instance with these settings; raises as when it would be started."""
    load, draft = resolve_load(model, requested, find)
    estimate = _estimate(model, load)
    return estimate + _estimate(draft, load) if draft else estimate


def _estimate(model: Model, load: Load) -> Estimate:
    assert model.facts.shape is not None  # the catalogue reads old models' headers anew
    return estimate_memory(model.facts.shape, load, embeds_only=model.facts.embedding)


def _meant(requested: Mapping[str, Any]) -> dict[str, Any]:
    """Who names a draft model wants it to be used."""
    return {"speculation": "draft_model"} if requested.get("draft_model") is not None else {}


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


def _of_file(longest: int) -> dict[str, Any]:
    row = TABLE["load"]["context_length"]
    if not longest:
        return {}
    return {"context_length": max(min(row.default, longest), int(row.facts.minimum or 0))}
