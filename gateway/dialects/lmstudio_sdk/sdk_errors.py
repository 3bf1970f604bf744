"""Errors as LM Studio's SDK takes them: a title, what may be done, and a code that its clients know. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from atelier.errors import AtelierError, InstanceNotFound, ModelNotFound, NotFound, PresetNotFound
from atelier.names import near_names
from gateway.fleet.snapshot import LOADED, Snapshot
from gateway.http.error_responses import from_validation

MOST_SHOWN = 10  # names

M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class Named:
    """What a request called things, for errors that are about them."""

    model: str = ""
    preset: str = ""


def serialized_error(error: AtelierError, named: Named, snapshot: Snapshot) -> dict[str, Any]:
    fields: dict[str, Any] = {"title": error.message, "errorData": error_data(error)}
    if suggestion := _suggestion(error):
        fields["suggestion"] = suggestion
    if display := _display_data(error, named, snapshot):
        fields["displayData"] = display
    return fields


def error_data(error: AtelierError) -> dict[str, Any]:
    """What a program may look at."""
    return {"code": error.code, "type": error.type, "param": error.param, "status": error.status}


def _suggestion(error: AtelierError) -> str:
    if isinstance(error, ModelNotFound | InstanceNotFound):
        return "list_downloaded_models() tells what may be loaded, list_loaded_models() what is loaded."
    if error.retry_after is not None:
        return f"Try again in {error.retry_after} s."
    return ""


def _display_data(error: AtelierError, named: Named, snapshot: Snapshot) -> dict[str, Any] | None:
    """By the codes of LM Studio's own server, from which its clients make an exception's class."""
    if isinstance(error, ModelNotFound | InstanceNotFound):
        loaded = [instance.id for instance in snapshot.instances.values() if instance.state in LOADED]
        return {
            "code": "generic.noModelMatchingQuery",
            "query": {"identifier": named.model},
            "nearNames": near_names(named.model, [*snapshot.models, *snapshot.instances]),
            "loadedModelsSample": loaded[:MOST_SHOWN],
            "totalLoadedModels": len(loaded),
        }
    if isinstance(error, PresetNotFound):
        return {
            "code": "generic.presetNotFound",
            "specifiedFuzzyPresetIdentifier": named.preset,
            "availablePresetsSample": [{"identifier": name, "name": name} for name in [*snapshot.presets][:MOST_SHOWN]],
            "totalAvailablePresets": len(snapshot.presets),
        }
    return None


def unknown_endpoint(kind: str, endpoint: str, namespace: str, known: Collection[str]) -> NotFound:
    there = f" There are: {', '.join(sorted(known))}." if known else ""
    return NotFound(f'/{namespace} has no {kind} "{endpoint[:100]}".{there}', param="endpoint")


def parsed(kind: type[M], value: Any) -> M:
    """InvalidRequest that names the field at fault."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None
