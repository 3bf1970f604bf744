"""A model as OpenAI lists it."""

from typing import Any

from gateway.snapshot import Model


def model_object(name: str, model: Model) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(model.imported_at),
        "owned_by": model.publisher or model.key.partition("/")[0],
    }
