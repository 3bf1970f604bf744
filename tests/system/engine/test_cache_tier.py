"""The second tier of the prefix cache with the real model: more prompts than slots, and a restarted worker."""

from pathlib import Path

import pytest

from atelier.settings import Load
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = [pytest.mark.system, pytest.mark.asyncio]

ROOMY = {"context_length": 512, "parallel": 2, "reproducible": True}
WORDS = ("Item", "Thing", "Name", "Place", "Colour")
PROMPTS = [" ".join(f"{word} {number} is here." for number in range(25)) + " What is it?" for word in WORDS]
GOES_ON = " Say more."
Answer = tuple[str, int]  # the text, and how many tokens of its prompt were cached


async def answers(directory: Path, model: Path, prompts: list[str], **load: int) -> list[Answer]:
    """One after another, by a new worker."""
    async with (
        worker_process(directory, model, Load(**{**ROOMY, **load})) as spec,  # type: ignore[arg-type]
        WorkerClient(spec) as client,
    ):
        return [await answer(client, call, text) for call, text in enumerate(prompts)]


async def answer(client: WorkerClient, call: int, text: str) -> Answer:
    await client.submit(call, text, sampling={"temperature": 0, "max_tokens": 16, "ignore_eos": True})
    texts, ends = await client.finish(call)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    statistics: pb.Statistics = ends[0].finished.statistics
    return texts[0], statistics.cached_tokens


async def test_evicted_prompts_are_restored_from_ram_with_the_same_text(tmp_path: Path, starter_model: Path) -> None:
    longer = [prompt + GOES_ON for prompt in PROMPTS]
    cold = [await answers(tmp_path, starter_model, [prompt]) for prompt in longer[:2]]
    first, again, more = _parts(await answers(tmp_path, starter_model, [*PROMPTS, *PROMPTS, *longer], cache_ram=64), 3)
    assert [text for text, _ in again] == [text for text, _ in first]
    assert [text for text, _ in more[:2]] == [text for ((text, _),) in cold]
    assert all(cached > 100 for _, cached in (*again, *more))


async def test_a_conversation_that_lost_its_slot_comes_back_warm_by_default(
    tmp_path: Path, starter_model: Path
) -> None:
    """Nine conversations on eight slots; then the memory of the saved ones is needed elsewhere."""
    prompts = [f"Chat {number}. {PROMPTS[0]}" for number in range(9)]
    async with (
        worker_process(tmp_path, starter_model, Load(context_length=512, parallel=8, reproducible=True)) as spec,
        WorkerClient(spec) as client,
    ):
        first = [await answer(client, call, text) for call, text in enumerate(prompts)]
        again = [await answer(client, 20 + call, text) for call, text in enumerate(prompts)]
        assert [text for text, _ in again] == [text for text, _ in first]
        assert all(cached > 100 for _, cached in again)
        request = pb.ReleaseCacheRequest(instance_id=spec.instance_id, size_bytes=2**40)
        reply = await client.stub.ReleaseCache(request, metadata=client.metadata)
        assert reply.released_bytes > 2**20
        assert (await answer(client, 40, prompts[0]))[1] < 100


async def test_prompts_are_restored_from_disk_after_a_restart_with_the_same_text(
    tmp_path: Path, starter_model: Path
) -> None:
    first = await answers(tmp_path, starter_model, PROMPTS, cache_ram=0, cache_disk=64)
    again = await answers(tmp_path, starter_model, PROMPTS, cache_ram=0, cache_disk=64)
    assert [text for text, _ in again] == [text for text, _ in first]
    assert all(cached > 100 for _, cached in again)
    other = await answers(tmp_path, starter_model, PROMPTS[:1], cache_disk=64, batch_size=256)
    assert other[0][1] == 0, "another way of computing: nothing of before is used"


def _parts(answers: list[Answer], count: int) -> list[list[Answer]]:
    size = len(answers) // count
    return [answers[start : start + size] for start in range(0, len(answers), size)]
