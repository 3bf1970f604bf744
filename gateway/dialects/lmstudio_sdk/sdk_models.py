"""Models and instances in the SDK's form, and which of them a specifier names. Pure."""

from atelier.errors import InstanceNotFound, InvalidRequest, ModelNotFound
from atelier.json_types import Json
from atelier.names import InstanceName
from gateway.core.call_plan import find_target
from gateway.dialects.lmstudio.lmstudio_model_list import params_string
from gateway.dialects.lmstudio_sdk.sdk_context import Domain
from gateway.dialects.lmstudio_sdk.sdk_frames import ModelSpecifier
from gateway.fleet.snapshot import LOADED, Instance, Model, Snapshot


def domain_of(model: Model) -> Domain:
    return "embedding" if model.embedding else "llm"


def model_info(model: Model) -> Json:
    """A model file. Its key serves as its path too, since a query may use either."""
    info: Json = {
        "type": domain_of(model),
        "modelKey": model.key,
        "format": "gguf",
        "displayName": model.display_name or model.key,
        "path": model.key,
        "sizeBytes": model.size_bytes,
        "paramsString": params_string(model.parameters),
        "architecture": model.architecture,
        "quantization": {"name": model.quantization, "bits": round(model.bits_per_weight, 2)},
        "maxContextLength": model.max_context_length,
    }
    if model.embedding:
        return info
    return {**info, "vision": model.made_for_vision, "trainedForToolUse": model.made_for_tools}


def instance_info(instance: Instance, model: Model) -> Json:
    identity = {"identifier": instance.id, "instanceReference": instance.id}
    return {**model_info(model), **identity, "contextLength": instance.context_length}


def loaded_instances(snapshot: Snapshot, domain: Domain) -> list[Instance]:
    """Loaded instances of the domain, sorted by id."""
    instances = (instance for _, instance in sorted(snapshot.instances.items()))
    return [each for each in instances if each.state in LOADED and domain_of(snapshot.model_of(each)) == domain]


def requested_name(specifier: ModelSpecifier, snapshot: Snapshot, domain: Domain) -> str:
    """The name in the specifier, or the id of any loaded instance that matches its query.

    Raises InvalidRequest, InstanceNotFound, ModelNotFound.
    """
    if specifier.type == "instanceReference":
        reference = specifier.instance_reference
        if not reference:
            raise InvalidRequest("instanceReference: is required", param="instanceReference")
        if reference not in snapshot.instances:
            raise InstanceNotFound(f'The instance "{reference[:200]}" is no longer loaded.', param="model")
        return reference
    query = specifier.query
    if query is None:
        raise InvalidRequest("query: is required", param="query")
    if query.domain not in (None, domain):
        raise InvalidRequest(f"query.domain: must be {domain} here", param="query.domain")
    if name := query.identifier or query.path:
        return name
    instances = loaded_instances(snapshot, domain)
    if query.vision:
        instances = [each for each in instances if snapshot.model_of(each).made_for_vision]
    if not instances:
        kind = "vision model" if query.vision else "model"
        raise ModelNotFound(f"No {kind} is loaded.", param="model")
    return instances[0].id


def find_loaded(name: str, snapshot: Snapshot, domain: Domain) -> Instance | None:
    """The named instance, or the first instance of the named model; None if none is loaded. Raises ModelNotFound."""
    target, model = find_target(name, snapshot)
    check_domain(model, domain)
    loaded = loaded_instances(snapshot, domain)
    if isinstance(target, InstanceName):
        return next((instance for instance in loaded if instance.id == target.id), None)
    return next((instance for instance in loaded if instance.model_key == target.key), None)


def check_domain(model: Model, domain: Domain) -> None:
    """Raises InvalidRequest if the model is not of the namespace's kind."""
    if domain_of(model) != domain:
        purpose = "computes embeddings" if model.embedding else "generates text"
        raise InvalidRequest(f'"{model.key}" {purpose}; use the namespace /{domain_of(model)}.', param="model")
