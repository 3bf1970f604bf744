"""LM Studio's dialects and the native routes."""

from typing import Any

import pytest

from atelier import __version__
from atelier.errors import InsufficientMemory
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import RunningGateway, events_of, running_gateway, until

HELLO = [{"role": "user", "content": "one two three"}]
STATS = {
    *("tokens_per_second", "time_to_first_token", "generation_time", "stop_reason"),
    *("prompt_tokens_count", "predicted_tokens_count", "total_tokens_count", "total_time_sec"),
    *("num_gpu_layers", "cached_tokens_count"),
}


async def test_v0_chat_adds_statistics_model_and_runtime(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        reply = (await http.post("/api/v0/chat/completions", json={"model": "tiny", "messages": HELLO})).json()
    assert reply["choices"][0]["message"]["content"] == "one two three"
    assert set(reply["stats"]) == STATS
    assert reply["stats"]["stop_reason"] == "eosFound"
    assert (reply["stats"]["prompt_tokens_count"], reply["stats"]["total_tokens_count"]) == (3, 6)
    assert reply["stats"]["total_time_sec"] > 0
    assert reply["model_info"] == {"arch": "llama", "quant": "Q4_1", "format": "gguf", "context_length": 4096}
    assert reply["runtime"] == {"name": "lm-atelier", "version": __version__, "supported_formats": ["gguf"]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_tokens": -1}, "eosFound"),
        ({"max_tokens": 1}, "maxPredictedTokensReached"),
        ({"stop": "two"}, "stopStringFound"),
    ],
)
async def test_v0_streams_have_the_statistics_in_the_last_chunk(
    gateway: RunningGateway, fields: dict[str, Any], reason: str
) -> None:
    body = {"model": KEY, "messages": HELLO, "stream": True, **fields}
    async with gateway.client() as http:
        reply = await http.post("/api/v0/chat/completions", json=body)
    *chunks, last, done = events_of(reply.text)
    assert done == "[DONE]"
    assert not any("stats" in chunk for chunk in chunks)
    assert last["stats"]["stop_reason"] == reason
    assert last["stats"].get("stop_string") == fields.get("stop")


async def test_v0_completions_have_statistics_too(gateway: RunningGateway) -> None:
    body = {"model": "tiny", "prompt": "one two", "echo": True, "max_tokens": -1}
    async with gateway.client() as http:
        whole = (await http.post("/api/v0/completions", json=body)).json()
        streamed = await http.post("/api/v0/completions", json={**body, "stream": True})
        refused = await http.post("/api/v0/completions", json={**body, "max_tokens": 0})
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "one twoone two")
    assert set(whole["stats"]) == STATS
    assert whole["model_info"]["format"] == "gguf"
    *chunks, last, done = events_of(streamed.text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "one twoone two"
    assert set(last["stats"]) == STATS
    assert done == "[DONE]"
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")


async def test_v0_embeddings_equal_openais(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        body = {"model": "tiny", "input": ["a", "b"]}
        v0 = (await http.post("/api/v0/embeddings", json=body)).json()
        assert v0 == (await http.post("/v1/embeddings", json=body)).json()
    assert [each["embedding"] for each in v0["data"]] == [[1.0, 0.0, 0.0, 0.0]] * 2


async def test_an_unknown_quantization_is_null(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.tell(pb.Change(model=model_message(KEY, quantization="")))
    await until(lambda: not gateway.gateway.watcher.snapshot.models[KEY].quantization)
    async with gateway.client() as http:
        (model,) = (await http.get("/api/v1/models")).json()["models"]
    assert model["quantization"] is None


async def test_only_an_instances_own_draft_model_may_be_named(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"draft_tokens": [5, 3]}
    body = {"model": KEY, "messages": HELLO}
    async with gateway.client() as http:
        await http.post("/api/v1/models/load", json={"model": KEY, "draft_model": "acme/small"})
        own = await http.post("/api/v0/chat/completions", json={**body, "draft_model": "small"})
        other = await http.post("/api/v0/chat/completions", json={**body, "draft_model": "large"})
    assert own.status_code == 200
    draft_stats = {name: value for name, value in own.json()["stats"].items() if "draft" in name}
    assert draft_stats == {
        "draft_model": "acme/small",
        "total_draft_tokens_count": 5,
        "accepted_draft_tokens_count": 3,
        "rejected_draft_tokens_count": 2,
        "ignored_draft_tokens_count": 0,
    }
    assert (other.status_code, other.json()["error"]["param"]) == (400, "draft_model")
    assert "--draft-model" in other.json()["error"]["message"]


async def test_an_estimate_loads_nothing(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with gateway.client() as http:
        body = {"model": "tiny", "context_length": 2048, "estimate_only": True}
        reply = (await http.post("/api/v1/models/load", json=body)).json()
    memory = {"weights": 1000, "kv_cache": 2048, "compute": 10, "total": 3058}
    assert reply == {"model": KEY, "status": "estimated", "memory_bytes": memory}
    assert registry.created == []


async def test_a_model_is_loaded_listed_and_unloaded(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with gateway.client() as http:
        body = {"model": "tiny", "context_length": 2048, "eval_batch_size": 64, "echo_load_config": True}
        reply = (await http.post("/api/v1/models/load", json=body)).json()
        assert (reply["type"], reply["instance_id"], reply["status"]) == ("llm", KEY, "loaded")
        assert reply["load_time_seconds"] == 0.25
        assert (reply["load_config"]["context_length"], reply["load_config"]["eval_batch_size"]) == (2048, 64)
        assert registry.created[0].load.batch_size == 64
        assert not registry.created[0].load.HasField("parallel")

        second = (await http.post("/api/v1/models/load", json={"model": KEY})).json()
        assert (second["instance_id"], "load_config" in second) == (f"{KEY}:2", False)

        (v1,) = (await http.get("/api/v1/models")).json()["models"]
        assert [each["id"] for each in v1["loaded_instances"]] == [KEY, f"{KEY}:2"]
        assert v1["loaded_instances"][0]["config"]["context_length"] == 2048
        assert (v1["key"], v1["type"], v1["params_string"], v1["format"]) == (KEY, "llm", "135M", "gguf")
        (v0,) = (await http.get("/api/v0/models")).json()["data"]
        assert (v0["state"], v0["loaded_context_length"]) == ("loaded", 2048)
        assert (await http.get(f"/api/v0/models/{KEY}")).json() == v0

        for instance in (KEY, f"{KEY}:2"):
            reply = await http.post("/api/v1/models/unload", json={"instance_id": instance})
            assert reply.json() == {"instance_id": instance}
        assert (await http.get("/api/v0/models")).json()["data"][0]["state"] == "not-loaded"


async def test_requests_for_a_key_are_spread_and_those_for_an_instance_are_not(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    await registry.start_instance()
    await registry.start_instance(id="special")
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 3)
    async with gateway.client() as http:
        assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == [KEY, "special"]
        body = {"messages": HELLO, "stream": True}
        streams = [http.stream("POST", "/v1/chat/completions", json={"model": name, **body}) for name in [KEY] * 6]
        streams += [http.stream("POST", "/v1/chat/completions", json={"model": f"{KEY}:2", **body})]
        replies = [await stream.__aenter__() for stream in streams]
        assert gateway.gateway.workers.in_flight() == {KEY: 2, f"{KEY}:2": 3, "special": 2}
        for worker in registry.workers.values():
            worker.engine.release()  # type: ignore[attr-defined]
        texts = [(await reply.aread()).decode() for reply in replies]
        for stream in streams:
            await stream.__aexit__(None, None, None)
    assert all(text.endswith("data: [DONE]\n\n") for text in texts)
    assert events_of(texts[-1])[0]["model"] == f"{KEY}:2"


async def test_a_load_that_fails_says_why(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.fail_with = InsufficientMemory("It needs 9 GiB, and 2 GiB are free.")
    async with gateway.client() as http:
        by_hand = await http.post("/api/v1/models/load", json={"model": KEY})
        by_request = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO, "stream": True})
    for reply in (by_hand, by_request):
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "insufficient_memory"
        assert "9 GiB" in reply.json()["error"]["message"]
        assert reply.headers["retry-after"] == "30"


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("load", {"model": "nobody/nothing"}, 404, "model"),
        ("load", {"model": KEY, "context_length": 1}, 400, "context_length"),
        ("load", {"model": KEY, "identifier": "../x"}, 400, "identifier"),
        ("load", {"model": KEY, "num_experts": 0}, 400, "num_experts"),
        ("load", {}, 400, "model"),
        ("unload", {"instance_id": "tiny"}, 404, "instance_id"),
        ("unload", {}, 400, "instance_id"),
        ("import", {"path": ""}, 400, "path"),
        ("import", {"path": "/a\0b"}, 400, "path"),
        ("import", {"path": "/a", "mode": "steal"}, 400, "mode"),
        ("import", {"path": "/a", "key": "../../x"}, 400, "key"),
    ],
)
async def test_an_invalid_change_is_rejected_by_field_name(
    gateway: RunningGateway, registry: FakeRegistry, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    async with gateway.client() as http:
        reply = await http.post(f"/api/v1/models/{path}", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
    assert (registry.created, registry.unloaded, registry.imported) == ([], [], [])


async def test_an_import_returns_the_model(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with gateway.client() as http:
        body = {"path": "/models/x.gguf", "key": "acme/x", "mode": "in_place"}
        reply = (await http.post("/api/v1/models/import", json=body)).json()
        assert reply["key"] == "acme/x"
        assert (await http.get("/v1/models/acme/x")).status_code == 200
    assert registry.imported == [
        pb.ImportModelRequest(path="/models/x.gguf", key="acme/x", mode=pb.ImportModelRequest.IN_PLACE)
    ]


async def test_instances_are_listed_with_all_their_facts(gateway: RunningGateway, registry: FakeRegistry) -> None:
    await registry.start_instance(context_length=512)
    failed = pb.Instance(id="bad", model_key=KEY, state=pb.FAILED)
    failed.error.code, failed.error.message = "model_load_failed", "it is no model"
    registry.set_instance(failed)
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    async with gateway.client() as http:
        tiny, bad = (await http.get("/api/v1/instances")).json()["instances"]
    assert set(tiny) == {
        *("id", "model", "state", "pin", "pid", "host", "context_length", "parallel", "gpu_layers", "active"),
        *("queued", "load_progress", "load_time_seconds", "restarts", "on_demand", "started_at", "error", "config"),
        *("adapters", "preset", "ttl_seconds", "cache_ram_bytes", "cache_ram_limit_bytes"),
    }
    assert (tiny["id"], tiny["state"], tiny["context_length"], tiny["error"]) == (KEY, "ready", 512, None)
    assert (bad["state"], bad["error"]["message"]) == ("failed", "it is no model")


async def test_the_sequences_of_an_instance_are_listed(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": "word " * 100_000, "step_seconds": 0.001}
    await registry.start_instance(parallel=1)
    await registry.start_instance()
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    path = f"/api/v1/instances/{KEY}:2/sequences"
    body = {"model": f"{KEY}:2", "messages": HELLO, "stream": True}
    async with gateway.client() as http:
        async with http.stream("POST", "/v1/chat/completions", json=body, headers={"x-request-id": "req-7"}) as reply:
            pieces = reply.aiter_raw()
            await anext(pieces)
            (sequence,) = (await http.get(path)).json()["sequences"]
        assert set(sequence) == {
            *("request_id", "choice", "state", "priority", "prompt_tokens"),
            *("done_tokens", "cached_tokens", "predicted_tokens", "age_seconds"),
        }
        assert (sequence["request_id"], sequence["state"], sequence["prompt_tokens"]) == ("req-7", "decode", 3)
        await until(lambda: registry.workers[f"{KEY}:2"].engine.figures().active == 0)
        assert (await http.get(path)).json() == {"sequences": []}
        assert (await http.get("/api/v1/instances/acme/other/sequences")).status_code == 404


async def test_an_instance_that_is_not_loaded_has_no_sequences(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.set_instance(pb.Instance(id="coming", model_key=KEY, state=pb.LOADING))
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    async with gateway.client() as http:
        assert (await http.get("/api/v1/instances/coming/sequences")).json() == {"sequences": []}


async def test_status_describes_the_server(gateway: RunningGateway, registry: FakeRegistry) -> None:
    async with gateway.client() as http:
        status = (await http.get("/api/v1/status")).json()
        assert status.pop("uptime_seconds") >= 0
        assert status == {
            "version": __version__,
            "registry": "connected",
            "models": 1,
            "instances": 0,
            "requests": {"active": 0, "waiting": 0},
        }
        await registry.go_away()
        await until(lambda: not gateway.gateway.watcher.connected)
        assert (await http.get("/api/v1/status")).json()["registry"] == "away"


async def test_without_loading_on_demand_only_loaded_models_are_listed(registry: FakeRegistry) -> None:
    async with running_gateway(registry, load_on_demand=False) as gateway, gateway.client() as http:
        assert (await http.get("/v1/models")).json()["data"] == []
        refused = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert "atelier load" in refused.json()["error"]["message"]
        await registry.start_instance()
        await until(lambda: gateway.gateway.watcher.snapshot.instances)
        assert len((await http.get("/v1/models")).json()["data"]) == 1
        answered = await http.post("/v1/chat/completions", json={"model": KEY, "messages": HELLO})
        assert answered.status_code == 200
    assert registry.ensured == []


async def test_the_openapi_document_is_complete(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        described = (await http.get("/openapi.json")).json()
        assert (await http.get("/docs")).status_code == 200
    schemas = described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"]
            assert "503" in operation["responses"]
            if method in ("post", "put", "patch") and not path.endswith(("/{action}", "/cancel", "/test")):  # no body
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                assert schemas[reference.rpartition("/")[2]]["properties"]
    assert schemas["ChatBody"]["properties"]["temperature"]["anyOf"][0]["maximum"] == 5
