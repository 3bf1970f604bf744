"""/openapi.json and its examples. Every other test checks the replies that it receives against this document."""

import asyncio
from typing import Any

import jsonschema_rs
import pytest

from atelier.config import Config
from gateway.dialects.openapi import examples
from gateway.dialects.route import JSON
from gateway.server import Gateway

WITHOUT_REPLY = {"HEAD /", "DELETE /api/delete"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    async def written() -> Any:
        return Gateway(Config(home=tmp_path_factory.mktemp("home"), port=0)).app.openapi()

    return asyncio.run(written())


def operations(document: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


def holds(document: Any, schema: Any, value: Any) -> list[str]:
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [error.message for error in validator.iter_errors(value)]


def test_the_documented_operations_are_exactly_those_that_exist(document: Any) -> None:
    assert operations(document).keys() == examples().keys()


def test_every_operation_has_a_summary_a_dialect_a_reply_and_errors(document: Any) -> None:
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["tags"], name
        assert {status for status in operation["responses"] if status >= "400"} >= {"401", "403", "503"}, name
        assert bool(operation["responses"]["200"].get("content")) is (name not in WITHOUT_REPLY), name


def test_every_reply_has_a_schema_and_a_valid_example(document: Any) -> None:
    for name, operation in operations(document).items():
        if content := operation["responses"]["200"].get("content", {}).get(JSON):
            assert content["schema"], name
            assert holds(document, content["schema"], content["example"]) == [], name


def test_every_request_body_has_a_valid_example(document: Any) -> None:
    for name, operation in operations(document).items():
        if "requestBody" in operation:
            content = operation["requestBody"]["content"][JSON]
            assert holds(document, content["schema"], content["example"]) == [], name


def test_a_schema_rejects_unknown_fields(document: Any) -> None:
    example = examples()["POST /v1/chat/completions"]
    schema = {"$ref": "#/components/schemas/ChatCompletion"}
    assert holds(document, schema, {**example, "surprise": 1})
    assert holds(document, schema, {**example, "usage": None})


def test_path_and_query_parameters_are_documented(document: Any) -> None:
    parameters = document["paths"]["/v1/responses/{id}/input_items"]["get"]["parameters"]
    assert [(each["name"], each["in"]) for each in parameters] == [
        ("id", "path"),
        ("limit", "query"),
        ("order", "query"),
        ("after", "query"),
    ]


def test_a_path_shared_by_dialects_documents_the_errors_of_both(document: Any) -> None:
    schema = document["paths"]["/v1/models"]["get"]["responses"]["401"]["content"][JSON]["schema"]
    assert [each["$ref"].rpartition("/")[2] for each in schema["anyOf"]] == ["Error", "AnthropicError"]


def test_no_two_dialects_have_schemas_of_one_name(document: Any) -> None:
    """FastAPI would distinguish them by module, with `__` in their names."""
    assert [name for name in document["components"]["schemas"] if "__" in name] == []
