"""The OpenAPI document, which is made of the tables of routes.

The framework knows neither bodies nor replies: endpoints read and write both themselves.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.dialects.error_formats import FORMS, forms_of_path
from gateway.dialects.route import JSON, ReplySchema, ReplyType, Route

REF = "#/components/schemas/{model}"
GOOD = "Success."
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The server's key, if it requires one."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same key.",
    },
}


@cache
def examples() -> Mapping[str, object]:
    """An example of each operation's reply."""
    found: Json = json.loads((files("gateway.dialects") / "examples.json").read_text())
    return found


def add_route(app: FastAPI, route: Route, tag: str) -> None:
    extra: Json = {"responses": dict(route.other_replies)}
    if route.body is not None:
        extra["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(route.body)}}}
    app.add_api_route(
        route.path,
        route.endpoint,
        methods=[route.method],
        summary=route.summary,
        tags=[tag],
        response_model=None,
        responses=_error_replies(route.path, route.all_errors),
        openapi_extra=extra,
    )


def describe(app: FastAPI, routes: Sequence[Route]) -> None:
    """Make the application's OpenAPI document hold the schemas of bodies, replies and errors, with examples."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, routes)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, routes: Sequence[Route]) -> Json:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    bodies = [route.body for route in routes if route.body is not None]
    replies = [kind for route in routes for kind in (route.reply, route.events) if kind is not None]
    kinds: list[Any] = list(dict.fromkeys([*bodies, *replies]))
    schemas, definitions = TypeAdapter.json_schemas(
        [(kind, "validation", TypeAdapter(kind)) for kind in kinds], ref_template=REF, schema_generator=ReplySchema
    )
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components |= {**definitions["$defs"], **{name: form.schema for name, form in FORMS.items()}}
    for route in routes:
        path = re.sub(r":\w+}", "}", route.path)
        operation = document["paths"][path][route.method.lower()]
        operation["parameters"] = _parameters(path, route.query)
        content = _content(route, lambda kind: schemas[kind, "validation"], examples().get(f"{route.method} {path}"))
        operation["responses"]["200"] = {"description": GOOD, **({"content": content} if content else {})}
        if route.request is not None:
            operation["requestBody"]["content"][JSON]["example"] = route.request
    document["components"]["securitySchemes"] = KEYS
    document["security"] = [{}, *({name: []} for name in KEYS)]
    return document


def _content(route: Route, schema_of: Callable[[ReplyType], Json], example: object) -> Json:
    """OpenAPI's `content` of a good reply. A stream may end with an error."""
    if route.media is None:
        return {}
    schema = schema_of(route.reply) if route.reply is not None else {"type": "string"}
    content: Json = {route.media: {"schema": schema, "example": example}}
    if route.events is not None:
        content[route.stream] = {"schema": {"anyOf": [schema_of(route.events), _error_schema(route.path)]}}
    return content


def _error_replies(path: str, kinds: Sequence[type[AtelierError]]) -> dict[int | str, Json]:
    content = {JSON: {"schema": _error_schema(path)}}
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append((kind.__doc__ or "").strip())
    return {status: {"description": " / ".join(texts), "content": content} for status, texts in by_status.items()}


def _error_schema(path: str) -> Json:
    schemas = [{"$ref": REF.format(model=form.name)} for form in forms_of_path(path)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _parameters(path: str, query: Mapping[str, Json]) -> list[Json]:
    in_path = [(name, "path", {"type": "string"}) for name in re.findall(r"{(\w+)}", path)]
    in_query = [(name, "query", schema) for name, schema in query.items()]
    return [
        {"name": name, "in": place, "required": place == "path", "schema": schema}
        for name, place, schema in (*in_path, *in_query)
    ]


def _ref(kind: type[BaseModel]) -> Json:
    return {"$ref": REF.format(model=kind.__name__)}
