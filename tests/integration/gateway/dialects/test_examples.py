"""The example replies of the OpenAPI document are those of the scripted engine to the example requests.

`RECORD_EXAMPLES=1` rewrites gateway/dialects/examples.json.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from atelier import __version__
from atelier.json_types import Json
from gateway.dialects import openapi
from protos import registry_pb2 as pb
from tests.integration.mcp_client.test_pool import ODD
from tests.support.gateway.gateway_registry import FakeRegistry, model_message
from tests.support.gateway.gateway_server import RunningGateway, running_gateway, until

CHATS = "huggingfacetb/smollm2-135m-instruct"
EMBEDS = "nomic-ai/nomic-embed-text-v1.5"
RANKS = "baai/bge-reranker-v2-m3"
REPO = "bartowski/Qwen3-0.6B-GGUF"
RECORDED = Path(openapi.__file__).with_name("examples.json")

# Replies without JSON, and those that the scripted parts cannot produce; their examples are written by hand.
BY_HAND = {
    *("HEAD /", "DELETE /api/delete", "GET /metrics"),
    *("POST /detokenize", "POST /v1/detokenize"),
    "GET /api/v1/instances/{id}/sequences",
    "POST /api/v1/models/verify",
    "POST /api/v1/mcp/elicitations/{id}",
}
PARAMETERS = {
    "GET /v1/models/{id}": {"id": CHATS},
    "GET /api/v0/models/{id}": {"id": CHATS},
    "GET /api/v1/models/{id}/info": {"id": CHATS},
    "GET /api/v1/models/{id}/settings": {"id": CHATS},
    "GET /api/v1/models/download/status/{job_id}": {"job_id": "d1"},
    "POST /api/v1/models/download/{job_id}/{action}": {"job_id": "d1", "action": "pause"},
    "POST /api/v1/mcp/servers/{label}/test": {"label": "files"},
}
QUERIES = {"GET /api/v1/presets/{name}/diff": {"version": "1"}}
HEADERS = {
    "POST /mcp": {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "prompts/list",
    }
}
CANCEL = "POST /v1/responses/{id}/cancel"
FIRST = (CANCEL, "POST /api/v1/presets/import")
LAST = (
    *("POST /api/pull", "POST /api/v1/models/default-preset", "DELETE /api/v1/presets/{name}"),
    *("DELETE /v1/responses/{id}", "POST /api/v1/models/unload", "POST /api/v1/models/remove"),
)


@pytest.fixture
async def examples_gateway(registry: FakeRegistry, tmp_path: Path) -> Any:
    facts: Json = {"display_name": "SmolLM2 135M Instruct", "bits_per_weight": 5.85, "size_bytes": 98_000_000}
    registry.models = {
        CHATS: model_message(CHATS, **facts, layers=30, embedding_length=576),
        EMBEDS: model_message(EMBEDS, architecture="nomic-bert", embedding=True),
        RANKS: model_message(RANKS, architecture="bert", embedding=True),
    }
    files = ["Qwen3-0.6B-Q4_K_M.gguf"]
    variant = pb.Variant(quantization="Q4_K_M", files=files, size_bytes=484_220_320, fits=True)
    found: Json = {"author": "bartowski", "downloads": 70_000, "likes": 20, "changed_at": "2025-05-01T00:00:00Z"}
    registry.found = [pb.Repository(id=REPO, **found, licence="apache-2.0", commit="c" * 40, variants=[variant])]
    sizes: Json = {"total_bytes": 484_220_320, "done_bytes": 96_844_064}
    registry.downloads["d1"] = pb.Download(id="d1", repo=REPO, commit="c" * 40, files=files, started_at=1, **sizes)
    server = {"command": sys.executable, "args": ["-S", "-E", ODD, ""], "allowedTools": ["echo"]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"files": server}}))
    registry.script = {"text": "Hello! How can I help you today?"}
    registry.hold_loads = True
    async with running_gateway(registry, home=tmp_path) as gateway:
        yield gateway


async def test_examples_are_the_servers_replies(examples_gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with examples_gateway.client() as client:
        document = (await client.get("/openapi.json")).json()
        operations = {
            f"{method.upper()} {path}": operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        found = {name: openapi.examples().get(name) for name in BY_HAND}
        between = [name for name in operations if name not in (*FIRST, *LAST, *BY_HAND)]
        for name in (*FIRST, *between, *LAST):
            example = operations[name].get("requestBody", {}).get("content", {}).get("application/json", {})
            reply = await perform(client, registry, name, example.get("example"), found)
            assert reply.status_code == 200, (name, reply.text)
            is_json = reply.headers["content-type"] == "application/json"
            registry.released.set()  # once the response that waits for its model is cancelled
            found[name] = normalised(reply.json() if is_json else reply.text)
    found = {name: found[name] for name in operations}
    if os.environ.get("RECORD_EXAMPLES"):
        lines = (f"{json.dumps(name)}: {json.dumps(example, ensure_ascii=False)}" for name, example in found.items())
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert found == json.loads(RECORDED.read_text())


async def perform(
    client: httpx.AsyncClient, registry: FakeRegistry, name: str, body: Json | None, found: Mapping[str, Any]
) -> httpx.Response:
    registry.script["text"] = " Oslo." if "completions" in name and "chat" not in name else "Hello! How can I help you?"
    method, _, path = name.partition(" ")
    parameters = PARAMETERS.get(name, {"name": "precise"})
    if path.startswith("/v1/responses/"):
        created = {"model": CHATS, "input": "Hi", "background": name == CANCEL}
        parameters = {"id": (await client.post("/v1/responses", json=created)).json()["id"]}
    options: Json = {"headers": HEADERS.get(name), "params": QUERIES.get(name)}
    request = client.request(method, path.format(**parameters), json=body, **options)
    if name != "POST /api/pull":
        return await request
    pulling = asyncio.create_task(request)
    asked = len(registry.wanted)
    await until(lambda: len(registry.wanted) > asked)
    registry.set_download(state=pb.DOWNLOAD_COMPLETED, model_key=CHATS)
    return await pulling


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?P<fraction>\.\d+)?")
HEXADECIMAL = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
DURATION = re.compile(r"seconds$|duration$|_time$|_time_sec$|_per_second$|^time_to_first_token$|^seconds_left$")
MOMENT = re.compile(r"(^created|_at)$")


def normalised(value: Any, key: str = "") -> Any:
    """The value without the parts that differ each time: ids, times, durations, the version."""
    match value:
        case dict():
            return {name: normalised(each, name) for name, each in value.items()}
        case list():
            return [normalised(each, key) for each in value]
        case str() if key in ("version", "atelier") and value == __version__:
            return "0.1.0"
        case str():
            return TIME.sub(_same_time, HEXADECIMAL.sub("9daf7a8018074938ab34fa91fa12684a", value))
        case float() if DURATION.search(key):
            return 0.25
        case int() if key.endswith("_duration"):
            return 250_000_000
        case int() | float() if MOMENT.search(key):
            return type(value)(1_795_588_480)
        case _:
            return value


def _same_time(found: re.Match[str]) -> str:
    return "2026-01-02T03:04:05" + re.sub(r"\d", "0", found["fraction"] or "")
