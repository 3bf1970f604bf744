"""Models and instances as Ollama lists them. Pure."""

import hashlib

from atelier.json_types import Json
from gateway.dialects.lmstudio.lmstudio_translation import params_string
from gateway.dialects.ollama.ollama_replies import rfc3339
from gateway.fleet.snapshot import Instance, Model
from protos.registry_pb2 import ModelDescription

FOREVER_SECONDS = 292 * 365.25 * 86_400  # as far ahead as Ollama puts what stays; clients show it as "forever"


def tag_object(name: str, model: Model) -> Json:
    return {
        "name": name,
        "model": name,
        "modified_at": rfc3339(model.imported_at),
        "size": model.size_bytes,
        "digest": digest(model),
        "details": details(model),
    }


def digest(model: Model) -> str:
    """In hexadecimal, of what tells this model from others and from an earlier one of its name.

    Not of the file, as Ollama's own is of a manifest. Its command line cannot list a model without one.
    """
    told = f"{model.key}\n{model.size_bytes}\n{model.quantization}\n{model.imported_at}"
    return hashlib.sha256(told.encode()).hexdigest()


def details(model: Model) -> Json:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.architecture,
        "families": [model.architecture],
        "parameter_size": params_string(model.parameters),
        "quantization_level": model.quantization,
    }


def show_object(model: Model, described: ModelDescription) -> Json:
    """`template` is the model's own, in Jinja."""
    shown: Json = {
        "modified_at": rfc3339(model.imported_at),
        "parameters": parameter_lines(model),
        "template": described.chat_template,
        "details": details(model),
        "model_info": model_info(model, described),
        "capabilities": capabilities(model, described),
    }
    return {**shown, "license": described.licence} if described.licence else shown


def parameter_lines(model: Model) -> str:
    """What the file itself sets, as a Modelfile has it."""
    return "\n".join(f"{name:<30} {value}" for name, value in sorted(model.sampling_defaults.items()))


def model_info(model: Model, described: ModelDescription) -> Json:
    """By the names of the GGUF file's metadata."""
    architecture = model.architecture
    return {
        "general.architecture": architecture,
        "general.parameter_count": model.parameters,
        f"{architecture}.block_count": model.layers,
        f"{architecture}.context_length": model.max_context_length,
        f"{architecture}.embedding_length": described.model.embedding_length,
    }


def capabilities(model: Model, described: ModelDescription) -> list[str]:
    if model.embedding:
        return ["embedding"]
    trained = {
        "vision": model.made_for_vision,
        "tools": described.made_for_tools,
        "thinking": described.made_for_reasoning,
    }
    return ["completion", *(name for name, is_so in trained.items() if is_so)]


def process_object(instance: Instance, model: Model, now: float) -> Json:
    """`expires_at` is the latest moment: as if it worked until now."""
    left = FOREVER_SECONDS if instance.ttl is None else instance.ttl
    return {
        "name": instance.id,
        "model": instance.id,
        "size": model.size_bytes,
        "digest": digest(model),
        "details": details(model),
        "expires_at": rfc3339(now + left),
        "size_vram": vram_bytes(instance, model),
        "context_length": instance.context_length,
    }


def vram_bytes(instance: Instance, model: Model) -> int:
    """The file's part on GPUs, by its layers: what else is there nobody measures for one instance."""
    if not model.layers:
        return 0
    return round(model.size_bytes * min(1.0, instance.gpu_layers / model.layers))
