"""The list of models in OpenAI's format, with further fields that clients use. Pure."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from gateway.dialects.anthropic.anthropic_model_list import AnthropicModel, AnthropicModelList
from gateway.dialects.route import Nullable
from gateway.fleet.catalogue import loaded
from gateway.fleet.snapshot import Instance, Model, Snapshot


class ModelObject(TypedDict):
    """OpenAI's four fields, and further ones by their names in LM Studio's v0."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["llm", "vlm", "embeddings"]
    state: Literal["loaded", "not-loaded"]
    max_context_length: int
    capabilities: list[str]
    loaded_context_length: NotRequired[Nullable[int]]


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelObject]


ListedModels = TypeAliasType(
    "ListedModels",
    Annotated[
        ModelList | AnthropicModelList,
        Field(
            title="ListedModels", description="Anthropic's list where the request has an `anthropic-version` header."
        ),
    ],
)
ListedModel = TypeAliasType(
    "ListedModel",
    Annotated[
        ModelObject | AnthropicModel,
        Field(
            title="ListedModel", description="Anthropic's object where the request has an `anthropic-version` header."
        ),
    ],
)


def model_object(name: str, model: Model, snapshot: Snapshot) -> ModelObject:
    """`name`: the model's key, or an instance's id."""
    instances = instances_named(name, model, snapshot)
    entry: ModelObject = {
        "id": name,
        "object": "model",
        "created": int(model.imported_at),
        "owned_by": model.publisher or model.key.partition("/")[0],
        "type": type_name(model),
        "state": "loaded" if instances else "not-loaded",
        "max_context_length": model.max_context_length,
        "capabilities": capability_names(model),
    }
    if instances:
        entry["loaded_context_length"] = instances[0].context_length
    return entry


def type_name(model: Model) -> Literal["llm", "vlm", "embeddings"]:
    """LM Studio's name for the kind of model."""
    if model.embedding:
        return "embeddings"
    return "vlm" if model.made_for_vision else "llm"


def instances_named(name: str, model: Model, snapshot: Snapshot) -> list[Instance]:
    """The instances that may serve a request for this name."""
    instances = loaded(snapshot, model.key)
    return instances if name == model.key else [each for each in instances if each.id == name]


def capability_names(model: Model) -> list[str]:
    """LM Studio's names for what the model is made for. Requests for other features are served too."""
    known = {"tool_use": model.made_for_tools, "reasoning": model.made_for_reasoning, "vision": model.made_for_vision}
    return [name for name, has in known.items() if has]
