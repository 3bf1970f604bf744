"""Models and loaded instances in Ollama's form. Pure."""

import hashlib
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from atelier.json_types import Json
from gateway.dialects.lmstudio.lmstudio_model_list import params_string
from gateway.dialects.reply import rfc3339
from gateway.dialects.route import Nullable
from gateway.fleet.snapshot import Instance, Model
from protos.registry_pb2 import ModelDescription

# Ollama's own value for an instance that is never unloaded; its clients show it as "forever".
FOREVER_SECONDS = 292 * 365.25 * 86_400

Capability = Literal["completion", "embedding", "tools", "thinking", "vision", "insert"]


class OllamaDetails(TypedDict):
    parent_model: str
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaTag(TypedDict):
    name: str
    model: str
    modified_at: str
    size: int
    digest: Annotated[
        str, Field(description="Identifies the model, and changes with it. Not a digest of the model's file.")
    ]
    details: OllamaDetails


class OllamaTags(TypedDict):
    models: list[OllamaTag]


class OllamaModel(TypedDict):
    modified_at: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: Json
    capabilities: list[Capability]
    license: NotRequired[Nullable[str]]


class OllamaProcess(TypedDict):
    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


class OllamaProcesses(TypedDict):
    models: list[OllamaProcess]


def tag_object(name: str, model: Model) -> OllamaTag:
    return {
        "name": name,
        "model": name,
        "modified_at": modified_at(model),
        "size": model.size_bytes,
        "digest": digest(model),
        "details": details(model),
    }


def modified_at(model: Model) -> str:
    return rfc3339(model.imported_at, "microseconds")


def digest(model: Model) -> str:
    """A hexadecimal digest of what distinguishes the model from others, and from an earlier one of its name.

    Ollama's own is the digest of a manifest; its command line cannot list a model without one.
    """
    identity = f"{model.key}\n{model.size_bytes}\n{model.quantization}\n{model.imported_at}"
    return hashlib.sha256(identity.encode()).hexdigest()


def details(model: Model) -> OllamaDetails:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.architecture,
        "families": [model.architecture],
        "parameter_size": params_string(model.parameters),
        "quantization_level": model.quantization,
    }


def show_object(model: Model, described: ModelDescription) -> OllamaModel:
    """`template` is the model's own Jinja template."""
    shown: OllamaModel = {
        "modified_at": modified_at(model),
        "parameters": parameter_lines(model),
        "template": described.chat_template,
        "details": details(model),
        "model_info": model_info(model, described),
        "capabilities": capabilities(model, described),
    }
    if described.licence:
        shown["license"] = described.licence
    return shown


def parameter_lines(model: Model) -> str:
    """The file's sampling defaults, in the notation of a Modelfile."""
    return "\n".join(f"{name:<30} {value}" for name, value in sorted(model.sampling_defaults.items()))


def model_info(model: Model, described: ModelDescription) -> Json:
    """By the metadata keys of the GGUF file."""
    architecture = model.architecture
    return {
        "general.architecture": architecture,
        "general.parameter_count": model.parameters,
        f"{architecture}.block_count": model.layers,
        f"{architecture}.context_length": model.max_context_length,
        f"{architecture}.embedding_length": described.model.embedding_length,
    }


def capabilities(model: Model, described: ModelDescription) -> list[Capability]:
    if model.embedding:
        return ["embedding"]
    optional: dict[Capability, bool] = {
        "vision": model.made_for_vision,
        "tools": described.made_for_tools,
        "thinking": described.made_for_reasoning,
    }
    return ["completion", *(name for name, present in optional.items() if present)]


def process_object(instance: Instance, model: Model, now: float) -> OllamaProcess:
    """`expires_at`: as if the instance had been busy until now."""
    idle_seconds = FOREVER_SECONDS if instance.ttl is None else instance.ttl
    return {
        "name": instance.id,
        "model": instance.id,
        "size": model.size_bytes,
        "digest": digest(model),
        "details": details(model),
        "expires_at": rfc3339(now + idle_seconds, "microseconds"),
        "size_vram": vram_bytes(instance, model),
        "context_length": instance.context_length,
    }


def vram_bytes(instance: Instance, model: Model) -> int:
    """The part of the file on GPUs, by its layers. Caches are not included: they are not measured per instance."""
    if not model.layers:
        return 0
    return round(model.size_bytes * min(1.0, instance.gpu_layers / model.layers))
