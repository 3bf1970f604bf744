"""What is told of models and instances, and which of them a specifier means. Pure."""

from typing import Literal

from atelier.errors import InstanceNotFound, InvalidRequest, ModelNotFound
from atelier.json_types import Json
from atelier.names import InstanceName
from gateway.core.call import find_target
from gateway.dialects.lmstudio.lmstudio_translation import params_string, v1_model
from gateway.dialects.lmstudio_sdk.sdk_frames import ModelSpecifier
from gateway.fleet.snapshot import LOADED, Instance, Model, Snapshot

Domain = Literal["llm", "embedding"]


def domain_of(model: Model) -> Domain:
    return "embedding" if model.embedding else "llm"


def model_info(model: Model) -> Json:
    """Of a file: its key stands for its path, since both may be asked for."""
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
    capabilities = v1_model(model, Snapshot())["capabilities"]
    return {
        **info,
        "vision": capabilities["vision"],
        "trainedForToolUse": capabilities["trained_for_tool_use"],
    }


def instance_info(instance: Instance, model: Model) -> Json:
    identity = {"identifier": instance.id, "instanceReference": instance.id}
    return {**model_info(model), **identity, "contextLength": instance.context_length}


def model_of(instance: Instance, snapshot: Snapshot) -> Model:
    """An instance may outlive its model's entry."""
    return snapshot.models.get(instance.model_key) or Model(key=instance.model_key)


def loaded_instances(snapshot: Snapshot, domain: Domain) -> list[Instance]:
    """Those that can answer, by their ids."""
    instances = (instance for _, instance in sorted(snapshot.instances.items()))
    return [each for each in instances if each.state in LOADED and domain_of(model_of(each, snapshot)) == domain]


def meant_name(specifier: ModelSpecifier, snapshot: Snapshot, domain: Domain) -> str:
    """The name that a request gives, or that of whatever is loaded where it gives none."""
    if specifier.type == "instanceReference":
        reference = specifier.instance_reference
        if not reference:
            raise InvalidRequest("instanceReference: is required", param="instanceReference")
        if reference not in snapshot.instances:
            raise InstanceNotFound(f'The instance "{reference[:200]}" is not loaded any more.', param="model")
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
        instances = [each for each in instances if model_of(each, snapshot).made_for_vision]
    if not instances:
        raise ModelNotFound(
            "No model that sees images is loaded." if query.vision else "No model is loaded.", param="model"
        )
    return instances[0].id


def find_loaded(name: str, snapshot: Snapshot, domain: Domain) -> Instance | None:
    """The instance that a name means, or the first of a model's; None where none is loaded."""
    target, model = find_target(name, snapshot)
    check_domain(model, domain)
    loaded = loaded_instances(snapshot, domain)
    if isinstance(target, InstanceName):
        return next((instance for instance in loaded if instance.id == target.id), None)
    return next((instance for instance in loaded if instance.model_key == target.key), None)


def check_domain(model: Model, domain: Domain) -> None:
    if domain_of(model) != domain:
        does = "makes embeddings" if model.embedding else "generates text"
        raise InvalidRequest(f'"{model.key}" {does}: ask for it as /{domain_of(model)}.', param="model")
