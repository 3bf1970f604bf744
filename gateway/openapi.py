"""What /openapi.json says of the routes, which read their bodies themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from atelier.errors import AtelierError
from gateway.ollama.errors import is_ollama

REF = "#/components/schemas/{model}"

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The request's field at fault."},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is of this kind."""
    schema = {"$ref": REF.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


OLLAMA_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def error_replies(path: str, *kinds: type[AtelierError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail so."""
    model = "OllamaError" if is_ollama(path) else "Error"
    content = {"application/json": {"schema": {"$ref": REF.format(model=model)}}}
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append((kind.__doc__ or "").strip())
    return {status: {"description": " / ".join(told), "content": content} for status, told in by_status.items()}


def describe(app: FastAPI, bodies: list[type[BaseModel]]) -> None:
    """Make the application's OpenAPI hold the schemas of bodies and errors."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, definitions = models_json_schema([(kind, "validation") for kind in bodies], ref_template=REF)
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components |= {**definitions["$defs"], "Error": ERROR_SCHEMA, "OllamaError": OLLAMA_ERROR_SCHEMA}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
