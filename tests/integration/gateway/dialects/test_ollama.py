"""Ollama's dialect, through its official client."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import ollama
import orjson
import pytest

from atelier.errors import DiskFull, HubUnavailable, to_message
from protos import registry_pb2 as pb
from tests.support.gateway.gateway_registry import KEY, FakeRegistry, model_message
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, running_gateway, until

WORDS = [{"role": "user", "content": "one two three"}]
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {"type": "object", "required": ["town"], "properties": {"town": {"type": "string"}}},
    },
}


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=gateway.url, timeout=PATIENCE, trust_env=False, verify=False) as opened:
        yield opened


async def send(gateway: RunningGateway, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with gateway.client() as http:
        reply = await http.request(method, path, json=body)
    return reply.status_code, reply.json() if reply.content else None


async def lines_of(gateway: RunningGateway, path: str, body: Any) -> list[Any]:
    async with gateway.client() as http:
        reply = await http.post(path, json=body)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson")
    assert reply.text.endswith("\n")
    return [orjson.loads(line) for line in reply.text.splitlines()]


async def test_a_chat_is_answered_with_its_statistics(client: ollama.AsyncClient) -> None:
    reply = await client.chat("tiny", WORDS)
    assert (reply.message.role, reply.message.content) == ("assistant", "one two three")
    assert (reply.model, reply.done, reply.done_reason) == (KEY, True, "stop")
    assert (reply.prompt_eval_count, reply.eval_count) == (3, 3)
    assert all((reply[name] or 0) >= 0 for name in DURATIONS)
    total, load = reply.total_duration or 0, reply.load_duration or 0
    assert 0 < load < total < PATIENCE * 1e9
    assert datetime.fromisoformat(reply.created_at or "").tzinfo == UTC


async def test_a_streamed_chat_equals_one_that_is_not_streamed(
    client: ollama.AsyncClient, registry: FakeRegistry
) -> None:
    registry.script = {"reasoning": "let me see"}
    whole = await client.chat("tiny", WORDS)
    parts = [part async for part in await client.chat("tiny", WORDS, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == whole.message.content == "one two three"
    assert "".join(part.message.thinking or "" for part in parts) == whole.message.thinking == "let me see"
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    for name in ("model", "done_reason", "prompt_eval_count", "eval_count"):
        assert last[name] == whole[name]
    assert set(last.model_fields_set) == set(whole.model_fields_set)


async def test_the_synchronous_client_works_too(gateway: RunningGateway) -> None:
    def talk() -> tuple[str | None, str]:
        with ollama.Client(host=gateway.url, timeout=PATIENCE, trust_env=False, verify=False) as client:
            whole = client.chat("tiny", WORDS).message.content
            return whole, "".join(part.response or "" for part in client.generate("tiny", "a b", stream=True))

    assert await asyncio.to_thread(talk) == ("one two three", "a b")


async def test_streams_are_the_default(gateway: RunningGateway) -> None:
    lines = await lines_of(gateway, "/api/chat", {"model": KEY, "messages": WORDS})
    assert "".join(line["message"]["content"] for line in lines) == "one two three"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    lines = await lines_of(gateway, "/api/generate", {"model": KEY, "prompt": "one two", "stream": None})
    assert "".join(line["response"] for line in lines) == "one two"


async def test_a_prompt_is_answered_whole_and_streamed(client: ollama.AsyncClient, registry: FakeRegistry) -> None:
    registry.script = {"reasoning": "hm"}
    whole = await client.generate("tiny", "one two", system="Be brief.")
    parts = [part async for part in await client.generate("tiny", "one two", stream=True)]
    assert (whole.response, whole.thinking, whole.context) == ("one two", "hm", None)
    assert "".join(part.response or "" for part in parts) == "one two"
    assert "".join(part.thinking or "" for part in parts) == "hm"
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("stop", whole.eval_count)


async def test_thinking_is_omitted_on_request(client: ollama.AsyncClient, registry: FakeRegistry) -> None:
    registry.script = {"reasoning": "let me see"}
    whole = await client.chat("tiny", WORDS, think=False)
    parts = [part async for part in await client.chat("tiny", WORDS, think=False, stream=True)]
    assert whole.message.thinking is None
    assert all(part.message.thinking is None for part in parts)
    assert parts[-1].eval_count == whole.eval_count == 3, "the thought is not even begun"


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"num_predict": 2}, "one two", "length"),
        ({"num_predict": -1}, "one two three", "stop"),
        ({"stop": [" three"]}, "one two", "stop"),
        ({"stop": " two"}, "one", "stop"),
        ({"num_ctx": 2048, "seed": -1, "repeat_last_n": -1, "numa": True, "temperature": 0}, "one two three", "stop"),
    ],
)
async def test_options_apply_to_streams_and_whole_answers(
    gateway: RunningGateway, options: Any, text: str, reason: str
) -> None:
    body = {"model": KEY, "messages": WORDS, "options": options}
    lines = await lines_of(gateway, "/api/chat", body)
    status, whole = await send(gateway, "POST", "/api/chat", {**body, "stream": False})
    assert status == 200
    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"] == text
    assert lines[-1]["done_reason"] == whole["done_reason"] == reason


async def test_a_context_length_beyond_the_loaded_one_is_rejected(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    body = {"model": KEY, "messages": WORDS, "options": {"num_ctx": 8192}}
    status, reply = await send(gateway, "POST", "/api/chat", body)
    assert status == 400
    assert reply["error"].startswith(f"options.num_ctx: {KEY} is loaded with a context of 4096 tokens.")
    assert gateway.gateway.admission.active == 0
    registry.models[KEY].max_context_length = 4096  # more is not possible
    registry.tell(pb.Change(model=registry.models[KEY]))
    await until(lambda: gateway.gateway.watcher.snapshot.models[KEY].max_context_length == 4096)
    assert (await send(gateway, "POST", "/api/chat", {**body, "stream": False}))[0] == 200


async def test_tools_are_called_and_their_results_used(client: ollama.AsyncClient, registry: FakeRegistry) -> None:
    calls = [{"name": "weather", "arguments": '{"town": "Oslo"}'}, {"name": "weather", "arguments": '{"town": "Rome"}'}]
    registry.script = {"text": "", "tool_calls": calls}
    asked = await client.chat("tiny", WORDS, tools=[WEATHER])
    streamed = [part async for part in await client.chat("tiny", WORDS, tools=[WEATHER], stream=True)]
    calls = [call for part in streamed for call in part.message.tool_calls or []]
    assert calls == asked.message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("weather", {"town": "Oslo"}),
        ("weather", {"town": "Rome"}),
    ]
    assert (asked.done_reason, streamed[-1].done_reason) == ("stop", "stop")
    results = [{"role": "tool", "tool_name": "weather", "content": "rain"}]
    answered = await client.chat("tiny", [*WORDS, asked.message, *results])
    assert answered.done


async def test_a_call_truncated_by_the_limit_becomes_text(client: ollama.AsyncClient, registry: FakeRegistry) -> None:
    registry.script = {"text": "", "tool_calls": [{"name": "weather", "arguments": '{"town": "Oslo"}'}]}
    options = {"num_predict": 2}
    whole = await client.chat("tiny", WORDS, tools=[WEATHER], options=options)
    parts = [p async for p in await client.chat("tiny", WORDS, tools=[WEATHER], options=options, stream=True)]
    assert (whole.message.tool_calls, whole.message.content) == (None, 'weather {"town":')
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert whole.done_reason == parts[-1].done_reason == "length"


async def test_logprobs_are_returned_in_chats_and_texts(client: ollama.AsyncClient) -> None:
    whole = await client.chat("tiny", WORDS, logprobs=True, top_logprobs=2)
    parts = [part async for part in await client.generate("tiny", "one two", stream=True, logprobs=True)]
    assert [entry.token for entry in whole.logprobs or []] == ["one", " two", " three"]
    assert [top.logprob for top in (whole.logprobs or [])[0].top_logprobs or []] == [-0.5, -1.0]
    assert [entry.token for part in parts for entry in part.logprobs or []] == ["one", " two"]


async def test_raw_text_and_infill_bypass_the_template(client: ollama.AsyncClient) -> None:
    assert (await client.generate("tiny", "as it is", raw=True)).response == "as it is"
    assert (await client.generate("tiny", "before", suffix="after")).response == "before"


async def test_texts_become_vectors(client: ollama.AsyncClient) -> None:
    several = await client.embed("tiny", ["a", "b"], dimensions=2)
    assert (several.embeddings, several.prompt_eval_count, several.model) == ([[1.0, 0.0]] * 2, 2, KEY)
    assert len((await client.embed("tiny", "a")).embeddings) == 1
    assert (await client.embeddings("tiny", "a")).embedding == [1.0, 0.0, 0.0, 0.0]
    assert (await client.embed("tiny", "")).embeddings == []


async def test_a_model_is_loaded_and_unloaded_without_a_prompt(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    loaded = await client.generate("tiny", keep_alive="10m")
    assert (loaded.response, loaded.done, loaded.done_reason) == ("", True, "load")
    assert (registry.ensured, registry.requested_ttls) == ([KEY], [600.0])
    await registry.start_instance()
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    assert (await client.chat("tiny:latest")).done_reason == "load"
    assert (await client.chat(f"{KEY}:2", keep_alive=0)).done_reason == "unload"
    assert registry.unloaded == [f"{KEY}:2"]
    assert (await client.generate("tiny", keep_alive="0s")).done_reason == "unload"
    assert registry.unloaded == [f"{KEY}:2", KEY]
    assert (await client.ps()).models == []
    assert (await client.generate("tiny", keep_alive=0)).done_reason == "unload"


@pytest.mark.parametrize(
    ("keep_alive", "ttl"),
    [(None, None), ("1h30m", 5400.0), (90, 90.0), (-1, -1.0), ("-1m", -1.0), ("99999999h", -1.0), (0, 1.0), ("0", 1.0)],
)
async def test_the_request_that_loads_a_model_sets_its_ttl(
    client: ollama.AsyncClient, registry: FakeRegistry, keep_alive: Any, ttl: float | None
) -> None:
    assert (await client.chat("tiny", WORDS, keep_alive=keep_alive)).done_reason == "stop"
    assert registry.requested_ttls == [ttl]


async def test_models_are_listed_with_their_facts(client: ollama.AsyncClient, registry: FakeRegistry) -> None:
    (model,) = (await client.list()).models
    assert (model.model, model.size, model.modified_at) == (KEY, 0, datetime.fromtimestamp(0, UTC))
    assert model.details is not None
    assert model.details.model_dump() == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "135M",
        "quantization_level": "Q4_1",
    }
    shown = await client.show("tiny:latest")
    assert (shown.template, shown.license, shown.details) == ("{{ messages }}", "mit", model.details)
    assert shown.capabilities == ["completion", "tools"]
    assert (shown.modelinfo or {})["llama.context_length"] == 8192


async def test_loaded_models_are_listed_with_their_expiry(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    instance = await registry.start_instance()
    registry.models[KEY].MergeFrom(pb.Model(size_bytes=1000, layers=10))
    registry.tell(pb.Change(model=registry.models[KEY]))
    instance.ttl_seconds, instance.gpu_layers = 300, 5
    registry.set_instance(instance)
    registry.set_instance(pb.Instance(id="coming", model_key=KEY, state=pb.LOADING))
    await until(lambda: "coming" in gateway.gateway.watcher.snapshot.instances)
    (loaded,) = (await client.ps()).models
    assert (loaded.name, loaded.model, loaded.context_length) == (KEY, KEY, 4096)
    assert (loaded.size, loaded.size_vram) == (1000, 500)
    assert loaded.expires_at is not None
    assert timedelta(0) < loaded.expires_at - datetime.now(UTC) <= timedelta(seconds=300)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (f"{KEY}:latest", KEY),
        (f"{KEY}:LATEST", KEY),
        ("tiny:2", f"{KEY}:2"),
        ("tiny:q4_1", KEY),
        ("Tiny:Q8_0", f"{KEY}@q8"),
        ("hf.co/Acme/Tiny-GGUF:Q4_1", KEY),
        ("huggingface.co/acme/tiny-gguf:latest", KEY),
        ("acme/tiny@q8:latest", f"{KEY}@q8"),
    ],
)
async def test_a_name_selects_the_model_of_its_tag(registry: FakeRegistry, name: str, key: str) -> None:
    registry.models[KEY].provenance.MergeFrom(pb.Provenance(source="hub", name="acme/tiny-GGUF"))
    registry.models[f"{KEY}@q8"] = model_message(f"{KEY}@q8", quantization="Q8_0")
    await registry.start_instance()
    await registry.start_instance()
    async with running_gateway(registry) as gateway:
        status, reply = await send(gateway, "POST", "/api/chat", {"model": name, "messages": WORDS, "stream": False})
    assert (status, reply.get("model")) == (200, key)


@pytest.mark.parametrize(
    ("name", "near"),
    [("tinny", KEY), ("tiny:7b", KEY), ("tiny:3", KEY), ("hf.co/acme/other:Q4_1", ""), ("llama3.2", "")],
)
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("chat", {"messages": WORDS}),
        ("chat", {"keep_alive": 0}),
        ("generate", {"prompt": "x"}),
        ("generate", {}),
        ("embed", {"input": "x"}),
        ("embeddings", {"prompt": "x"}),
        ("show", {}),
    ],
)
async def test_an_unknown_model_is_a_404_with_suggestions(
    gateway: RunningGateway, registry: FakeRegistry, name: str, near: str, path: str, more: Any
) -> None:
    status, reply = await send(gateway, "POST", f"/api/{path}", {"model": name, **more})
    assert status == 404
    assert set(reply) == {"error"}
    assert near in reply["error"]
    assert (registry.ensured, registry.unloaded) == ([], [])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("chat", {}, "model"),
        ("chat", {"model": ""}, "model"),
        ("chat", {"model": KEY, "messages": "hello"}, "messages"),
        ("chat", {"model": KEY, "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ("chat", {"model": KEY, "messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ("chat", {"model": KEY, "messages": [{**WORDS[0], "images": ["aGk="]}]}, "messages[0].images"),
        (
            "chat",
            {
                "model": KEY,
                "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ("chat", {"model": KEY, "messages": WORDS, "tools": [{"function": {}}]}, "tools[0].function.name"),
        ("chat", {"model": KEY, "messages": WORDS, "stream": "yes"}, "stream"),
        ("chat", {"model": KEY, "messages": WORDS, "format": "xml"}, "format"),
        ("chat", {"model": KEY, "messages": WORDS, "format": 1}, "format"),
        ("chat", {"model": KEY, "messages": WORDS, "think": "much"}, "think"),
        ("chat", {"model": KEY, "messages": WORDS, "think": -2}, "think"),
        ("chat", {"model": KEY, "messages": WORDS, "keep_alive": "5 minutes"}, "keep_alive"),
        ("chat", {"model": KEY, "messages": WORDS, "keep_alive": True}, "keep_alive"),
        ("chat", {"model": KEY, "messages": WORDS, "keep_alive": [5]}, "keep_alive"),
        ("chat", {"model": KEY, "messages": WORDS, "top_logprobs": 3}, "top_logprobs"),
        ("chat", {"model": KEY, "messages": WORDS, "top_logprobs": 21}, "top_logprobs"),
        ("chat", {"model": KEY, "messages": WORDS, "options": []}, "options"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"temperature": "hot"}}, "options.temperature"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"temperature": -1}}, "options.temperature"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"top_k": 2**63}}, "options.top_k"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"seed": 2**63}}, "options.seed"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"num_predict": -3}}, "options.num_predict"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"num_ctx": 0}}, "options.num_ctx"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"repeat_last_n": -2}}, "options.repeat_last_n"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"stop": ["x"] * 17}}, "options.stop"),
        ("chat", {"model": KEY, "messages": WORDS, "options": {"mirostat": 3}}, "options.mirostat"),
        ("generate", {"model": KEY, "prompt": ["x"]}, "prompt"),
        ("generate", {"model": KEY, "prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ("generate", {"model": KEY, "prompt": "x", "images": ["aGk="]}, "images"),
        ("generate", {"model": KEY, "prompt": "x", "raw": True, "system": "y"}, "system"),
        ("generate", {"model": KEY, "prompt": "x", "suffix": "z", "system": "y"}, "system"),
        ("generate", {"model": KEY, "prompt": "x", "context": ["a"]}, "context"),
        ("embed", {"model": KEY, "input": 1}, "input"),
        ("embed", {"model": KEY, "input": ["a", ""]}, "input"),
        ("embed", {"model": KEY, "input": "a", "dimensions": 0}, "dimensions"),
        ("embeddings", {"model": KEY, "prompt": 1}, "prompt"),
        ("show", {}, "model"),
        ("pull", {"stream": False}, "model"),
        ("pull", {"model": "a/b", "stream": 1}, "stream"),
    ],
)
async def test_an_invalid_body_is_rejected_by_field_name(
    gateway: RunningGateway, registry: FakeRegistry, path: str, body: Any, field: str
) -> None:
    status, reply = await send(gateway, "POST", f"/api/{path}", body)
    assert (status, set(reply)) == (400, {"error"})
    assert reply["error"].startswith(field)
    assert (registry.ensured, registry.wanted) == ([], [])


async def test_errors_of_every_kind_have_ollamas_form(gateway: RunningGateway, client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError, match="Near names") as refused:
        await client.chat("tinny", WORDS)
    assert refused.value.status_code == 404
    for method, path, status in [("GET", "/api/chat", 405), ("POST", "/api/copy", 404), ("POST", "/api/chat", 400)]:
        answered, reply = await send(gateway, method, path)
        assert (answered, set(reply)) == (status, {"error"})
        assert isinstance(reply["error"], str)
    _, others = await send(gateway, "GET", "/api/v1/nothing")
    assert others["error"]["code"] == "not_found"


async def test_a_wrong_key_is_reported_in_ollamas_form(registry: FakeRegistry) -> None:
    async with running_gateway(registry, api_key="secret") as gateway:
        assert (await send(gateway, "GET", "/api/tags"))[0] == 401
        headers = {"Authorization": "Bearer secret"}
        async with ollama.AsyncClient(host=gateway.url, headers=headers, trust_env=False, verify=False) as client:
            assert len((await client.list()).models) == 1


async def test_the_probe_of_ollamas_command_line_is_answered(gateway: RunningGateway) -> None:
    async with gateway.client() as http:
        assert (await http.head("/")).status_code == 200
        version = (await http.get("/api/version")).json()["version"]
    assert all(part.isdecimal() for part in version.split("."))


async def test_a_worker_that_dies_in_mid_stream_is_an_error_without_an_end(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"text": "word " * 10, "hang_after_tokens": 2}
    parts = await client.chat("tiny", WORDS, stream=True)
    assert (await anext(parts)).message.content
    await registry.kill_worker(KEY)
    with pytest.raises(ollama.ResponseError, match="send the request again"):
        assert all([not part.done async for part in parts])
    await until(lambda: gateway.gateway.admission.active == 0)


async def test_after_an_error_a_stream_has_no_further_line(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"text": "word " * 10, "hang_after_tokens": 2}
    body = {"model": KEY, "prompt": "x"}
    async with gateway.client() as http, http.stream("POST", "/api/generate", json=body) as reply:
        rows = reply.aiter_lines()
        assert "word" in orjson.loads(await anext(rows))["response"]
        await registry.kill_worker(KEY)
        *before, last = [orjson.loads(row) async for row in rows]
    assert not any(row["done"] for row in before)
    assert set(last) == {"error"}


@pytest.mark.parametrize(("path", "asked"), [("/api/chat", {"messages": WORDS}), ("/api/generate", {"prompt": "x"})])
async def test_a_disconnect_frees_the_sequence(
    gateway: RunningGateway, registry: FakeRegistry, path: str, asked: Any
) -> None:
    registry.script = {"text": "word " * 100_000, "step_seconds": 0.001}
    async with gateway.client() as http, http.stream("POST", path, json={"model": KEY, **asked}) as reply:
        await anext(reply.aiter_lines())
    await until(lambda: registry.workers[KEY].engine.figures().active == 0)
    await until(lambda: gateway.gateway.admission.active == 0)


async def test_a_pull_is_followed_until_the_model_can_be_used(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    progress = await client.pull("hf.co/acme/tiny-gguf:Q4_0", stream=True)
    assert (await anext(progress)).status == "pulling manifest"
    first = await anext(progress)
    assert (first.status, first.total, first.completed) == ("pulling a.gguf", 1000, 0)
    assert registry.wanted[0].model == "acme/tiny-gguf@Q4_0"
    registry.set_download(state=pb.DOWNLOAD_DOWNLOADING, done_bytes=400)
    assert (await anext(progress)).completed == 400
    registry.set_download(state=pb.DOWNLOAD_VERIFYING)
    assert (await anext(progress)).status == "verifying sha256 digest"
    registry.models["acme/new"] = model_message("acme/new")
    registry.set_download(state=pb.DOWNLOAD_COMPLETED, model_key="acme/new")
    registry.tell(pb.Change(model=registry.models["acme/new"]))
    assert [each.status async for each in progress] == ["success"]
    assert (await client.show("new")).details is not None


async def test_a_pull_that_is_not_streamed_waits_for_the_end(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    pulling = asyncio.create_task(client.pull("acme/tiny-gguf"))
    await until(lambda: gateway.gateway.watcher.snapshot.downloads)
    registry.set_download(state=pb.DOWNLOAD_COMPLETED, model_key=KEY)
    assert (await asyncio.wait_for(pulling, PATIENCE)).status == "success"


async def test_an_installed_model_is_not_pulled(client: ollama.AsyncClient, registry: FakeRegistry) -> None:
    statuses = [each.status async for each in await client.pull("tiny:latest", stream=True)]
    assert statuses == ["pulling manifest", "success"]
    assert registry.wanted == []


async def test_a_pull_that_fails_says_why(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    progress = await client.pull("acme/tiny-gguf", stream=True)
    assert [(await anext(progress)).status for _ in "ab"] == ["pulling manifest", "pulling a.gguf"]
    registry.set_download(state=pb.DOWNLOAD_FAILED, error=to_message(HubUnavailable("The hub is away.")))
    with pytest.raises(ollama.ResponseError, match="The hub is away"):
        await anext(progress)
    again = asyncio.create_task(client.pull("acme/tiny-gguf"))
    await until(lambda: gateway.gateway.watcher.snapshot.downloads["d1"].state == "queued")
    registry.set_download(state=pb.DOWNLOAD_COMPLETED, model_key=KEY)
    assert (await asyncio.wait_for(again, PATIENCE)).status == "success"


async def test_a_pull_cancelled_by_another_client_ends(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    progress = await client.pull("acme/tiny-gguf", stream=True)
    assert [(await anext(progress)).status for _ in "ab"] == ["pulling manifest", "pulling a.gguf"]
    assert (await send(gateway, "POST", "/api/v1/models/download/d1/cancel"))[0] == 200
    with pytest.raises(ollama.ResponseError, match="cancelled"):
        await anext(progress)


async def test_a_pull_ends_with_an_error_when_the_server_stops(
    client: ollama.AsyncClient, gateway: RunningGateway
) -> None:
    progress = await client.pull("acme/tiny-gguf", stream=True)
    await anext(progress)
    await anext(progress)
    gateway.gateway.admission.close()
    with pytest.raises(ollama.ResponseError, match="server is stopping"):
        await anext(progress)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_that_prevents_a_pull_has_its_status(
    gateway: RunningGateway, registry: FakeRegistry, stream: bool
) -> None:
    assert (await send(gateway, "POST", "/api/pull", {"model": "llama3.2:1b", "stream": stream}))[0] == 404
    registry.fail_with = DiskFull("full")
    body = {"name": "acme/tiny-gguf", "stream": stream}
    assert await send(gateway, "POST", "/api/pull", body) == (507, {"error": "full"})


async def test_a_model_is_deleted_and_an_instance_is_not(
    client: ollama.AsyncClient, gateway: RunningGateway, registry: FakeRegistry
) -> None:
    await registry.start_instance(id="mine")
    await until(lambda: gateway.gateway.watcher.snapshot.instances)
    with pytest.raises(ollama.ResponseError, match="instance") as refused:
        await client.delete("mine")
    assert refused.value.status_code == 400
    assert (await client.delete("tiny:latest")).status == "success"
    assert registry.removed == [KEY]
    assert (await client.list()).models[0].model == "mine"
