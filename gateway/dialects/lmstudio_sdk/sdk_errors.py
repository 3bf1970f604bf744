"""Errors in the form of LM Studio's SDK: a title, a suggestion, and a code that its clients know. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from atelier.errors import AtelierError, InstanceNotFound, ModelNotFound, NotFound, PresetNotFound
from atelier.json_types import Json
from atelier.names import near_names
from gateway.fleet.snapshot import LOADED, Snapshot
from gateway.http.error_responses import from_validation

MOST_SHOWN = 10  # names

M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class RequestedNames:
    """The names in a request, which errors about them repeat."""

    model: str = ""
    preset: str = ""


def serialized_error(error: AtelierError, requested: RequestedNames, snapshot: Snapshot) -> Json:
    fields: Json = {
        "title": error.message,
        "errorData": {"code": error.code, "type": error.type, "param": error.param, "status": error.status},
    }
    if suggestion := _suggestion(error):
        fields["suggestion"] = suggestion
    if display := _display_data(error, requested, snapshot):
        fields["displayData"] = display
    return fields


def _suggestion(error: AtelierError) -> str:
    if isinstance(error, ModelNotFound | InstanceNotFound):
        return "list_downloaded_models() lists the models that can be loaded, list_loaded_models() the loaded ones."
    if error.retry_after is not None:
        return f"Try again in {error.retry_after} s."
    return ""


def _display_data(error: AtelierError, requested: RequestedNames, snapshot: Snapshot) -> Json | None:
    """With the codes of LM Studio's own server: its clients choose an exception class by them."""
    if isinstance(error, ModelNotFound | InstanceNotFound):
        loaded = [instance.id for instance in snapshot.instances.values() if instance.state in LOADED]
        return {
            "code": "generic.noModelMatchingQuery",
            "query": {"identifier": requested.model},
            "nearNames": near_names(requested.model, [*snapshot.models, *snapshot.instances]),
            "loadedModelsSample": loaded[:MOST_SHOWN],
            "totalLoadedModels": len(loaded),
        }
    if isinstance(error, PresetNotFound):
        return {
            "code": "generic.presetNotFound",
            "specifiedFuzzyPresetIdentifier": requested.preset,
            "availablePresetsSample": [{"identifier": name, "name": name} for name in [*snapshot.presets][:MOST_SHOWN]],
            "totalAvailablePresets": len(snapshot.presets),
        }
    return None


def unknown_endpoint(kind: str, endpoint: str, namespace: str, known: Collection[str]) -> NotFound:
    available = f" Available: {', '.join(sorted(known))}." if known else ""
    return NotFound(f'/{namespace} has no {kind} "{endpoint[:100]}".{available}', param="endpoint")


def parsed(kind: type[M], value: object) -> M:
    """The validated value. Raises InvalidRequest, which names the field at fault."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise from_validation(error) from None
