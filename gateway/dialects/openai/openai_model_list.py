"""The list of models in OpenAI's format, with further fields that clients use. Pure."""

from collections.abc import Sequence
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


class LoadableFacts(TypedDict):
    """What LM Studio's v0 and OpenAI's list say about a model's use."""

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
    instances = loaded(snapshot, model.key)
    if name != model.key:
        instances = [each for each in instances if each.id == name]
    return {
        "id": name,
        "object": "model",
        "created": int(model.imported_at),
        "owned_by": model.publisher or model.key.partition("/")[0],
        **loadable_facts(model, instances),
    }


def loadable_facts(model: Model, instances: Sequence[Instance]) -> LoadableFacts:
    """`instances`: the loaded ones that a request for this name may use."""
    capabilities = {
        "tool_use": model.made_for_tools,
        "reasoning": model.made_for_reasoning,
        "vision": model.made_for_vision,
    }
    facts: LoadableFacts = {
        "type": "embeddings" if model.embedding else "vlm" if model.made_for_vision else "llm",
        "state": "loaded" if instances else "not-loaded",
        "max_context_length": model.max_context_length,
        "capabilities": [name for name, present in capabilities.items() if present],
    }
    if instances:
        facts["loaded_context_length"] = instances[0].context_length
    return facts
