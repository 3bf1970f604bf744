"""What /openapi.json says of the routes, which read their bodies themselves."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from atelier.errors import AtelierError
from atelier.json_types import Json
from gateway.dialects.anthropic import anthropic_reply_types as anthropic
from gateway.dialects.documented import JSON, Documented, ReplySchema
from gateway.dialects.error_formats import FORMS, forms_of_path
from gateway.dialects.lmstudio import lmstudio_reply_types as lmstudio
from gateway.dialects.mcp import mcp_reply_types as mcp
from gateway.dialects.native import mcp_server_reply_types as mcp_servers
from gateway.dialects.native import native_reply_types as management
from gateway.dialects.ollama import ollama_reply_types as ollama
from gateway.dialects.openai import openai_reply_types as openai
from gateway.dialects.responses import responses_reply_types as responses

REF = "#/components/schemas/{model}"
GOOD = "As asked for."

TABLES = {
    "OpenAI": openai.DOCUMENTED,
    "OpenAI's responses": responses.DOCUMENTED,
    "Anthropic": anthropic.DOCUMENTED,
    "LM Studio": lmstudio.DOCUMENTED,
    "Ollama": ollama.DOCUMENTED,
    "Management": management.DOCUMENTED | mcp_servers.DOCUMENTED,
    "MCP": mcp.DOCUMENTED,
}
"""The operations of each dialect, by method and path."""

DOCUMENTED = {operation: documented for table in TABLES.values() for operation, documented in table.items()}
DIALECTS = {operation: dialect for dialect, table in TABLES.items() for operation in table}

KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The server's key, where it has one."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key, as Anthropic's."},
}


def body_of(kind: type[BaseModel]) -> Json:
    """The `openapi_extra` of a route whose body is of this kind."""
    schema = {"$ref": REF.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def error_replies(path: str, *kinds: type[AtelierError]) -> dict[int | str, Json]:
    """The `responses` of a route that may fail so."""
    content = {JSON: {"schema": _error_schema(path)}}
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append((kind.__doc__ or "").strip())
    return {status: {"description": " / ".join(told), "content": content} for status, told in by_status.items()}


def _error_schema(path: str) -> Json:
    schemas = [{"$ref": REF.format(model=form.name)} for form in forms_of_path(path)]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _parameters(path: str, documented: Documented) -> list[Json]:
    """Endpoints read the path and the query themselves, so that the framework does not know what is in them."""
    in_path = [(name, "path", {"type": "string"}) for name in re.findall(r"{(\w+)}", path)]
    in_query = [(name, "query", schema) for name, schema in documented.query.items()]
    return [
        {"name": name, "in": place, "required": place == "path", "schema": schema}
        for name, place, schema in (*in_path, *in_query)
    ]


def describe(app: FastAPI, bodies: list[type[BaseModel]]) -> None:
    """Make the application's OpenAPI hold the schemas of bodies, replies and errors, with an example of each."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _written(app, bodies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _written(app: FastAPI, bodies: list[type[BaseModel]]) -> Json:
    written = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    replies = [kind for documented in DOCUMENTED.values() for kind in documented.schemas]
    kinds: list[Any] = list(dict.fromkeys([*bodies, *replies]))
    schemas, definitions = TypeAdapter.json_schemas(
        [(kind, "validation", TypeAdapter(kind)) for kind in kinds], ref_template=REF, schema_generator=ReplySchema
    )
    components = written.setdefault("components", {}).setdefault("schemas", {})
    components |= {**definitions["$defs"], **{name: form.schema for name, form in FORMS.items()}}
    for path, operations in written["paths"].items():
        error = _error_schema(path)
        for method, operation in operations.items():
            documented = DOCUMENTED[f"{method.upper()} {path}"]
            operation["tags"] = [DIALECTS[f"{method.upper()} {path}"]]
            operation["parameters"] = _parameters(path, documented)
            content = documented.content(lambda kind: schemas[kind, "validation"], error)
            operation["responses"]["200"] = {"description": GOOD, **({"content": content} if content else {})}
            if documented.request is not None:
                operation["requestBody"]["content"][JSON]["example"] = documented.request
    written["components"]["securitySchemes"] = KEYS
    written["security"] = [{}, *({name: []} for name in KEYS)]
    return written
