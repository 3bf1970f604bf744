"""Embeddings and reranking over the real wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from atelier.errors import LoadFailed
from tests.support.gateway.gateway_registry import KEY, FakeRegistry
from tests.support.gateway.gateway_server import PATIENCE, RunningGateway, post_bytes, running_gateway, until

EMBED = {"model": KEY, "input": ["a", "b"]}
RANK = {"model": "tiny", "query": "blue sea", "documents": ["red", {"text": "blue sea"}, "blue"]}


@contextlib.asynccontextmanager
async def embedding(gateway: RunningGateway) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """A request in progress."""
    async with gateway.client() as http:
        task = asyncio.create_task(http.post("/v1/embeddings", json=EMBED))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


def holds_call(registry: FakeRegistry) -> bool:
    """Whether the worker has the call: one still being sent to a server that stops may hang until its process ends."""
    return KEY in registry.workers and registry.workers[KEY].engine.figures().queued > 0


async def test_the_official_client_gets_vectors_in_its_encoding(
    client: openai.AsyncOpenAI, registry: FakeRegistry
) -> None:
    reply = await client.embeddings.create(model="tiny", input=["a", "b"])
    assert [(entry.index, entry.embedding) for entry in reply.data] == [(0, [1, 0, 0, 0]), (1, [1, 0, 0, 0])]
    assert (reply.object, reply.model, reply.usage.prompt_tokens, reply.usage.total_tokens) == ("list", KEY, 2, 2)
    assert registry.ensured == [KEY]  # the model was loaded for it


async def test_vectors_are_returned_as_numbers_with_the_requested_dimensions(client: openai.AsyncOpenAI) -> None:
    reply = await client.embeddings.create(model=KEY, input=[[5, 6], [7]], dimensions=2, encoding_format="float")
    assert [entry.embedding for entry in reply.data] == [[1, 0], [1, 0]]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=KEY, input="a", dimensions=5)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(("setting", "written"), [("as_asked", "AACAPwAAAAAAAAAAAAAAAA=="), ("float", [1, 0, 0, 0])])
async def test_a_setting_decides_whether_base64_is_written(
    registry: FakeRegistry, setting: str, written: object
) -> None:
    async with running_gateway(registry, embedding_encoding=setting) as gateway, gateway.client() as http:
        for encoding, expected in (("base64", written), ("float", [1, 0, 0, 0]), (None, [1, 0, 0, 0])):
            reply = await http.post("/v1/embeddings", json={**EMBED, "encoding_format": encoding})
            assert [entry["embedding"] for entry in reply.json()["data"]] == [expected] * 2
        options = {"api_key": "none", "max_retries": 0, "http_client": http}
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", **options)  # type: ignore[arg-type]
        assert (await client.embeddings.create(model=KEY, input="a")).data[0].embedding == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("input", {"input": 3}),
        ("input[1]", {"input": ["a", ""]}),
        ("input[1]", {"input": ["a", 3]}),
        ("input[0]", {"input": [[]]}),
        ("input", {"input": []}),
        ("dimensions", {"dimensions": "many"}),
        ("dimensions", {"dimensions": 0}),
        ("encoding_format", {"encoding_format": "hex"}),
        ("user", {"user": 3}),
        ("model", {"model": None}),
    ],
)
async def test_an_invalid_field_is_named(gateway: RunningGateway, param: str, fields: dict[str, object]) -> None:
    async with gateway.client() as http:
        reply = await http.post("/v1/embeddings", json={**EMBED, **fields})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_an_invalid_call_is_rejected_by_field_name(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    with pytest.raises(openai.NotFoundError, match="Near names: acme/tiny"):
        await client.embeddings.create(model="acme/tinny", input="a")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model=KEY, input="")
    assert caught.value.param == "input"
    assert registry.ensured == []


async def test_a_model_without_embeddings_is_a_400(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    registry.script = {"refuse_inputs": "This model makes no embeddings."}
    with pytest.raises(openai.BadRequestError, match="makes no embeddings") as caught:
        await client.embeddings.create(model=KEY, input="a")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "model")


async def test_a_load_that_fails_says_why(client: openai.AsyncOpenAI, registry: FakeRegistry) -> None:
    registry.fail_with = LoadFailed("The file is cut off.")
    with pytest.raises(openai.InternalServerError, match="cut off"):
        await client.embeddings.create(model=KEY, input="a")


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_documents_are_ranked(gateway: RunningGateway, path: str) -> None:
    async with gateway.client() as http:
        reply = (await http.post(path, json=RANK)).json()
        best = (await http.post(path, json={**RANK, "top_n": 1, "return_documents": True})).json()
    assert reply["model"] == KEY
    assert [(each["index"], each["relevance_score"]) for each in reply["results"]] == [(1, 2.0), (2, 1.0), (0, 0.0)]
    assert reply["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert best["results"] == [{"index": 1, "relevance_score": 2.0, "document": {"text": "blue sea"}}]


async def test_calls_for_a_key_are_spread_over_its_instances(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    await registry.start_instance()
    await until(lambda: len(gateway.gateway.watcher.snapshot.instances) == 2)
    async with embedding(gateway) as first, embedding(gateway) as second:
        await until(lambda: sorted(gateway.gateway.workers.in_flight().values()) == [1, 1])
        for worker in registry.workers.values():
            worker.engine.release()
        replies = await asyncio.wait_for(asyncio.gather(first, second), PATIENCE)
    assert [reply.status_code for reply in replies] == [200, 200]
    assert gateway.gateway.admission.active == 0


async def test_a_lost_worker_is_replaced_without_an_error(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    async with embedding(gateway) as request:
        await until(lambda: holds_call(registry))
        registry.script = {}
        await registry.kill_worker(KEY)
        reply = await asyncio.wait_for(request, PATIENCE)
    assert reply.status_code == 200
    assert gateway.gateway.metrics.registry.get_sample_value("atelier_request_retries_total") == 1


async def test_two_losses_are_an_error(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    async with embedding(gateway) as request:
        for _ in range(2):
            await until(lambda: holds_call(registry))
            await registry.kill_worker(KEY)
        reply = await asyncio.wait_for(request, PATIENCE)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "worker_lost")


async def test_a_disconnect_ends_the_call(gateway: RunningGateway, registry: FakeRegistry) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    _, writer = await gateway.raw(post_bytes("/v1/embeddings", EMBED))
    await until(lambda: gateway.gateway.workers.in_flight().get(KEY))
    writer.close()
    await until(lambda: not gateway.gateway.workers.in_flight().get(KEY))
    await until(lambda: gateway.gateway.admission.active == 0)


async def test_a_server_that_stops_ends_waiting_requests_with_an_error(
    gateway: RunningGateway, registry: FakeRegistry
) -> None:
    registry.script = {"hold": True}
    await registry.start_instance()
    async with embedding(gateway) as request:
        await until(lambda: gateway.gateway.workers.in_flight().get(KEY))
        await gateway.gateway.drain(0)
        reply = await asyncio.wait_for(request, PATIENCE)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "draining")


async def test_prompt_tokens_are_counted(gateway: RunningGateway, client: openai.AsyncOpenAI) -> None:
    await client.embeddings.create(model=KEY, input=["a", "b", "c"])
    metrics = gateway.gateway.metrics.registry
    assert metrics.get_sample_value("atelier_prompt_tokens_total", {"model": KEY}) == 3
