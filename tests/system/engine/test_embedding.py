"""Embeddings and rankings by the real engine: SmolLM2, and BERTs with random weights."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from gguf import PoolingType

from atelier.errors import AtelierError
from atelier.launch import LaunchSpec
from atelier.rpc import from_rpc_error
from atelier.settings import Load
from protos import inference_pb2 as pb
from tests.support.models.tiny_bert import LENGTH, LONGEST, write_tiny_bert
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

TEXTS = [
    "the sea is warm",
    "where is the old ship",
    "bread",
    " ".join(["the oven is warm"] * 20),
    "flour",
    "what is blue",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def generative(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LaunchSpec]:
    directory = tmp_path_factory.mktemp("worker")
    async with worker_process(directory, starter_model, Load(context_length=512, parallel=2)) as launched:
        yield launched


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(generative: LaunchSpec) -> AsyncIterator[WorkerClient]:
    async with WorkerClient(generative) as connected:
        yield connected


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[PoolingType.MEAN, PoolingType.CLS])
async def encoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WorkerClient]:
    directory = tmp_path_factory.mktemp("worker")
    model = write_tiny_bert(directory / "tiny.gguf", request.param)
    async with (
        worker_process(directory, model, Load(context_length=LONGEST)) as launched,
        WorkerClient(launched) as connected,
    ):
        yield connected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ranker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerClient]:
    directory = tmp_path_factory.mktemp("worker")
    model = write_tiny_bert(directory / "tiny.gguf", PoolingType.RANK)
    async with (
        worker_process(directory, model, Load(context_length=LONGEST)) as launched,
        WorkerClient(launched) as connected,
    ):
        yield connected


async def embed(client: WorkerClient, *texts: str, dimensions: int | None = None) -> np.ndarray:
    request = pb.EmbedRequest(instance_id="test/model", texts=texts, dimensions=dimensions)
    reply = await client.stub.Embed(request, metadata=client.metadata, wait_for_ready=True)
    return np.array([list(embedding.values) for embedding in reply.embeddings])


async def rerank(client: WorkerClient, query: str, *documents: str) -> list[float]:
    request = pb.RerankRequest(instance_id="test/model", query=query, documents=documents)
    return list((await client.stub.Rerank(request, metadata=client.metadata, wait_for_ready=True)).scores)


async def refusal(call: object) -> AtelierError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value)


async def same_alone_and_together(client: WorkerClient) -> None:
    alone = np.concatenate([await embed(client, text) for text in TEXTS])
    together = await embed(client, *TEXTS)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.sum(alone * together, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.matrix_rank(together, tol=1e-3) == len(TEXTS)


async def test_a_generative_models_vectors_are_the_same_alone_and_together(client: WorkerClient) -> None:
    await same_alone_and_together(client)


async def test_an_encoders_vectors_are_the_same_alone_and_together(encoder: WorkerClient) -> None:
    await same_alone_and_together(encoder)


async def test_fewer_dimensions_are_the_first_ones_normalised(encoder: WorkerClient) -> None:
    (whole,), (cut,) = await embed(encoder, TEXTS[0]), await embed(encoder, TEXTS[0], dimensions=5)
    assert cut == pytest.approx(whole[:5] / np.linalg.norm(whole[:5]), abs=1e-5)
    for dimensions in (0, LENGTH + 1):
        error = await refusal(embed(encoder, "sea", dimensions=dimensions))
        assert (error.status, error.param) == (400, "dimensions")


async def test_an_input_that_is_too_long_is_named(encoder: WorkerClient) -> None:
    error = await refusal(embed(encoder, "sea", "ship " * LONGEST))
    assert error.status == 400
    assert "Input 1 has" in error.message


async def test_an_encoder_rejects_completions_and_rankings(encoder: WorkerClient) -> None:
    await encoder.submit(1, text="sea")
    assert (await encoder.next(1)).failed.error.param == "model"
    assert (await refusal(rerank(encoder, "sea", "ship"))).status == 400


async def test_many_inputs_do_not_block_a_running_stream(client: WorkerClient) -> None:
    await client.submit(7, "Count from one to a hundred.", sampling={"max_tokens": 40, "temperature": 0})
    await client.next(7)
    embedding = asyncio.create_task(embed(client, *(f"{TEXTS[3]} {number}" for number in range(12))))
    tokens_before_the_end = 0
    while not (event := await client.next(7)).HasField("finished"):
        tokens_before_the_end += event.delta.tokens if not embedding.done() else 0
    assert tokens_before_the_end > 5
    assert len(await embedding) == 12


async def test_scores_are_the_same_alone_and_together(ranker: WorkerClient) -> None:
    together = await rerank(ranker, TEXTS[1], *TEXTS)
    alone = [(await rerank(ranker, TEXTS[1], text))[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 4) for score in together}) == len(TEXTS)
    assert await rerank(ranker, TEXTS[0], TEXTS[1]) != await rerank(ranker, TEXTS[1], TEXTS[0])


async def test_a_document_that_is_too_long_is_named(ranker: WorkerClient) -> None:
    error = await refusal(rerank(ranker, "sea", "ship", "ship " * LONGEST))
    assert (error.status, error.param) == (400, "document")
    assert "Document 1 has" in error.message


async def test_a_ranker_rejects_embeddings(ranker: WorkerClient) -> None:
    assert (await refusal(embed(ranker, "sea"))).status == 400
