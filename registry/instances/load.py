"""The load settings of an instance: what was asked for, what the model allows, what is usual."""

from collections.abc import Mapping
from typing import Any

from atelier.errors import InvalidRequest
from atelier.settings import TABLE, Layer, Load, resolve
from registry.models.estimate import Estimate, estimate_memory
from registry.models.model import Model


def resolve_load(model: Model, requested: Mapping[str, Any]) -> Load:
    """The settings that an instance starts with; InvalidRequest names the one that cannot be."""
    longest = model.facts.context_length
    wanted = requested.get("context_length")
    if longest and wanted is not None and wanted > longest:
        raise InvalidRequest(
            f"context_length is at most {longest} for {model.key}, not {wanted}.", param="context_length"
        )
    return resolve(Load, [Layer("request", requested), Layer("model file", _of_file(longest))]).build()


def estimate_for(model: Model, requested: Mapping[str, Any]) -> Estimate:
    """The memory of an instance with these settings; InvalidRequest as when it would be started."""
    assert model.facts.shape is not None  # the catalogue reads old models' headers anew
    return estimate_memory(model.facts.shape, resolve_load(model, requested), embeds_only=model.facts.embedding)


def _of_file(longest: int) -> dict[str, Any]:
    row = TABLE["load"]["context_length"]
    if not longest:
        return {}
    return {"context_length": max(min(row.default, longest), int(row.facts.minimum or 0))}
