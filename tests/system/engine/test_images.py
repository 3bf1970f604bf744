"""Images with the real model and a projector with random weights: the text is nonsense, but depends on the image."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from PIL import Image

from atelier.launch import LaunchSpec
from atelier.settings import Load
from protos import inference_pb2 as pb
from tests.support.models.pictures import encoded, noise
from tests.support.models.tiny_llama import write_tiny_llama
from tests.support.models.tiny_projector import CELLS, PLANES, write_tiny_projector
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

WIDTH = 576  # of SmolLM2-135M's embeddings
TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }} {% endfor %}[assistant]"
FEWEST = 4  # cells that an image takes


def look(*images: bytes, text: str = "What is this?", before: list[dict[str, Any]] | None = None) -> pb.Chat:
    parts = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    return pb.Chat(messages_json=orjson.dumps([*(before or []), {"role": "user", "content": parts}]), images=images)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted({**CELLS, **PLANES}))
async def seeing(
    request: pytest.FixtureRequest, starter_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LaunchSpec]:
    directory = tmp_path_factory.mktemp("seeing")
    model, width = starter_model, WIDTH
    if architecture := PLANES.get(request.param):
        width, path = 32, directory / "tiny.gguf"
        model = write_tiny_llama(path, architecture=architecture, quantised=True, template=TEMPLATE)
    projector = write_tiny_projector(directory / "mmproj.gguf", width, kind=request.param)
    async with worker_process(directory, model, Load(context_length=512), projector=projector) as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def eyes(seeing: LaunchSpec) -> AsyncIterator[WorkerClient]:
    async with WorkerClient(seeing) as connected:
        yield connected


async def answer(client: WorkerClient, call: int, chat: pb.Chat) -> tuple[str, pb.Event]:
    await client.submit(call, chat=chat, sampling={"max_tokens": 16, "temperature": 0})
    texts, ends = await client.finish(call)
    return texts[0], ends[0]


async def test_the_text_depends_on_the_image_and_is_the_same_for_the_same_image(eyes: WorkerClient) -> None:
    first, _ = await answer(eyes, 1, look(noise(1)))
    other, _ = await answer(eyes, 2, look(noise(2)))
    both, _ = await answer(eyes, 3, look(noise(1), noise(2)))
    again, end = await answer(eyes, 4, look(noise(1)))
    assert again == first
    assert len({first, other, both}) == 3
    assert end.finished.statistics.cached_tokens >= FEWEST


async def test_a_second_turn_reuses_the_cached_image_and_another_image_does_not(eyes: WorkerClient) -> None:
    text, _ = await answer(eyes, 1, look(noise(11)))
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    turns.append({"role": "assistant", "content": text})
    messages = orjson.dumps([*turns, {"role": "user", "content": "And now?"}])
    _, end = await answer(eyes, 2, pb.Chat(messages_json=messages, images=[noise(11)]))
    _, stranger = await answer(eyes, 3, pb.Chat(messages_json=messages, images=[noise(12)]))
    assert end.finished.statistics.cached_tokens > stranger.finished.statistics.cached_tokens + FEWEST


async def test_an_added_image_keeps_the_first_one_in_the_cache(eyes: WorkerClient) -> None:
    text, _ = await answer(eyes, 1, look(noise(14)))
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    turns.append({"role": "assistant", "content": text})
    added = look(noise(15), before=turns)
    _, end = await answer(eyes, 2, pb.Chat(messages_json=added.messages_json, images=[noise(14), noise(15)]))
    _, stranger = await answer(eyes, 3, pb.Chat(messages_json=added.messages_json, images=[noise(16), noise(15)]))
    assert end.finished.statistics.cached_tokens > stranger.finished.statistics.cached_tokens + FEWEST


async def test_calls_with_and_without_images_do_not_affect_each_other(eyes: WorkerClient) -> None:
    texts = [pb.Chat(messages_json=orjson.dumps([{"role": "user", "content": f"Count to {n}."}])) for n in (5, 9)]
    chats = [look(noise(21)), *texts, look(noise(22), text="Why?")]
    alone = [await answer(eyes, call, chat) for call, chat in enumerate(chats)]
    together = await asyncio.gather(*(answer(eyes, 10 + call, chat) for call, chat in enumerate(chats)))
    assert [text for text, _ in together] == [text for text, _ in alone]


async def test_an_invalid_image_is_rejected_and_the_next_call_works(eyes: WorkerClient) -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    for call, spoilt in enumerate([b"no image", noise(1)[:60], b"", bomb]):
        _, end = await answer(eyes, call, look(spoilt))
        assert (end.failed.error.code, end.failed.error.param) == ("invalid_value", "messages")
    _, end = await answer(eyes, 9, look(noise(1)))
    assert end.HasField("finished")


async def test_a_cancelled_call_with_an_image_frees_the_worker(eyes: WorkerClient) -> None:
    await eyes.submit(1, chat=look(noise(31, 2000, 2000)), sampling={"max_tokens": 16})
    await eyes.cancel(1)
    _, end = await answer(eyes, 2, look(noise(32)))
    assert end.HasField("finished")


async def test_the_token_count_of_a_chat_includes_its_images(eyes: WorkerClient, seeing: LaunchSpec) -> None:
    request = pb.TokenizeRequest(instance_id=seeing.instance_id, chat=look(noise(1)))
    tokens = (await eyes.stub.Tokenize(request, metadata=eyes.metadata)).ids
    await eyes.submit(1, chat=look(noise(1)), sampling={"max_tokens": 1})
    assert (await eyes.next(1)).accepted.prompt_tokens == len(tokens)
    assert sum(token == 2**32 - 1 for token in tokens) >= FEWEST


async def test_a_model_without_a_projector_rejects_images(client: WorkerClient) -> None:
    _, end = await answer(client, 1, look(noise(1)))
    assert end.failed.error.code == "invalid_value"
    assert "projector" in end.failed.error.message
