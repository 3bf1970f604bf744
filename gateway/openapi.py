"""What /openapi.json says of the routes, which read their bodies themselves."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from atelier.errors import AtelierError
from gateway.error_forms import FORMS, form_of_path

REF = "#/components/schemas/{model}"


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is of this kind."""
    schema = {"$ref": REF.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def error_replies(path: str, *kinds: type[AtelierError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail so."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=form_of_path(path).name)}}}
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append((kind.__doc__ or "").strip())
    return {status: {"description": " / ".join(told), "content": content} for status, told in by_status.items()}


def declare_parameters(path: str, operations: dict[str, Any]) -> None:
    """Endpoints read the path themselves, so that the framework does not know what is in it."""
    names = re.findall(r"{(\w+)}", path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    for operation in operations.values():
        operation["parameters"] = [*operation.get("parameters", []), *parameters]


def describe(app: FastAPI, bodies: list[type[BaseModel]]) -> None:
    """Make the application's OpenAPI hold the schemas of bodies and errors."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, definitions = models_json_schema([(kind, "validation") for kind in bodies], ref_template=REF)
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components |= {**definitions["$defs"], **{name: form.schema for name, form in FORMS.items()}}
            for path, operations in schema["paths"].items():
                declare_parameters(path, operations)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
