"""LM Studio's lists of models and instances, and the replies about loading them. Pure."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from atelier.json_types import Json
from atelier.settings import TABLE
from gateway.dialects.lmstudio.lmstudio_requests import LOAD_FIELDS, LoadBody
from gateway.dialects.openai.openai_model_list import loadable_facts
from gateway.dialects.route import Nullable
from gateway.fleet.catalogue import loaded
from gateway.fleet.snapshot import Instance, Model, Snapshot
from protos import registry_pb2 as pb

# The load settings that LM Studio's list of models shows.
LISTED_SETTINGS = ("context_length", "batch_size", "parallel", "flash_attention", "num_experts", "offload_kv")


class V0Model(TypedDict):
    id: str
    object: Literal["model"]
    type: Literal["llm", "vlm", "embeddings"]
    publisher: str
    arch: str
    compatibility_type: Literal["gguf"]
    quantization: str
    state: Literal["loaded", "not-loaded"]
    max_context_length: int
    capabilities: list[str]
    loaded_context_length: NotRequired[Nullable[int]]


class V0ModelList(TypedDict):
    object: Literal["list"]
    data: list[V0Model]


class V1Quantization(TypedDict):
    name: str
    bits_per_weight: float


class V1Instance(TypedDict):
    id: str
    config: Annotated[Json, Field(description="Load settings, by LM Studio's names.")]


class V1Capabilities(TypedDict):
    vision: bool
    trained_for_tool_use: bool


class V1Model(TypedDict):
    type: Literal["llm", "embedding"]
    publisher: str
    key: str
    display_name: str
    architecture: str
    quantization: V1Quantization | None
    size_bytes: int
    params_string: str
    loaded_instances: list[V1Instance]
    max_context_length: int
    format: Literal["gguf"]
    capabilities: V1Capabilities
    layers: int


class V1ModelList(TypedDict):
    models: list[V1Model]


class LoadedModel(TypedDict):
    type: Literal["llm", "embedding"]
    instance_id: str
    load_time_seconds: float
    status: Literal["loaded"]
    load_config: NotRequired[Nullable[Json]]


class MemoryBytes(TypedDict):
    weights: int
    kv_cache: int
    compute: int
    total: int
    weights_in_main_memory: NotRequired[int]  # of the weights, where load settings place some there


class EstimatedLoad(TypedDict):
    model: str
    status: Literal["estimated"]
    memory_bytes: MemoryBytes


LoadReply = TypeAliasType(
    "LoadReply",
    Annotated[
        LoadedModel | EstimatedLoad,
        Field(title="LoadReply", description="The estimate, if the request set `estimate_only`."),
    ],
)


class UnloadReply(TypedDict):
    instance_id: str


def v0_model(model: Model, snapshot: Snapshot) -> V0Model:
    return {
        "id": model.key,
        "object": "model",
        "publisher": model.publisher,
        "arch": model.architecture,
        "compatibility_type": "gguf",
        "quantization": model.quantization,
        **loadable_facts(model, loaded(snapshot, model.key)),
    }


def v1_models(snapshot: Snapshot) -> V1ModelList:
    return {"models": [v1_model(model, snapshot) for _, model in sorted(snapshot.models.items())]}


def v1_model(model: Model, snapshot: Snapshot) -> V1Model:
    return {
        "type": "embedding" if model.embedding else "llm",
        "publisher": model.publisher,
        "key": model.key,
        "display_name": model.display_name or model.key,
        "architecture": model.architecture,
        "quantization": quantization(model),
        "size_bytes": model.size_bytes,
        "params_string": params_string(model.parameters),
        "loaded_instances": [
            {"id": each.id, "config": load_config(each, LISTED_SETTINGS)} for each in loaded(snapshot, model.key)
        ],
        "max_context_length": model.max_context_length,
        "format": "gguf",
        "capabilities": {"vision": model.made_for_vision, "trained_for_tool_use": model.made_for_tools},
        "layers": model.layers,
    }


def quantization(model: Model) -> V1Quantization | None:
    """None if neither the file's name nor its header states it."""
    if not model.quantization:
        return None
    return {"name": model.quantization, "bits_per_weight": round(model.bits_per_weight, 2)}


def params_string(parameters: int) -> str:
    """134515008 -> "135M", 7241732096 -> "7.2B"."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            count = parameters / size
            return f"{count:.1f}{unit}".replace(".0", "") if count < 100 else f"{count:.0f}{unit}"
    return str(parameters)


def load_config(instance: Instance, names: tuple[str, ...] = tuple(TABLE["load"])) -> Json:
    """The instance's load settings by LM Studio's names, without those that are not set."""
    values = {**instance.load, **started_settings(instance)}
    return {TABLE["load"][name].facts.lmstudio: values[name] for name in names if name in values}


def started_settings(instance: Instance) -> Json:
    """The settings that the worker determined, possibly smaller than requested."""
    known = {"context_length": instance.context_length, "parallel": instance.parallel}
    return {name: value for name, value in known.items() if value}


def load_settings(body: LoadBody) -> Json:
    """The body's load settings, by setting name."""
    values = {setting: getattr(body, field) for field, setting in LOAD_FIELDS.items()}
    return {name: value for name, value in values.items() if value is not None}


def load_reply(instance: Instance, model: Model, *, echo: bool) -> LoadedModel:
    """`echo`: whether to include the resolved settings."""
    reply: LoadedModel = {
        "type": "embedding" if model.embedding else "llm",
        "instance_id": instance.id,
        "load_time_seconds": instance.load_seconds,
        "status": "loaded",
    }
    if echo:
        reply["load_config"] = load_config(instance)
    return reply


def estimate_reply(model: Model, estimate: pb.MemoryEstimate) -> EstimatedLoad:
    weights, kv_cache, compute = estimate.weights, estimate.kv_cache, estimate.compute
    memory: MemoryBytes = {
        "weights": weights,
        "kv_cache": kv_cache,
        "compute": compute,
        "total": weights + kv_cache + compute,
    }
    if estimate.weights_in_main_memory:
        memory["weights_in_main_memory"] = estimate.weights_in_main_memory
    return {"model": model.key, "status": "estimated", "memory_bytes": memory}
