"""LoRA adapters on the real model: what they change, and what they do not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from atelier.launch import LaunchSpec
from atelier.lora_adapters import Adapter
from atelier.settings import Load
from tests.support.models.lora_files import write_lora
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

LOAD = Load(context_length=512, parallel=4, reproducible=True)
PROMPT = " ".join(f"Item {number} is a word." for number in range(12)) + " What is the capital of France?"
OTHER = PROMPT + " And of Spain?"
BASE = [{"id": 0, "scale": 0.0}]
HALF = [{"name": "poet", "scale": 0.5}]
FULL = [{"id": 0, "scale": 1.0}]
CLERK = [{"name": "clerk", "scale": 1.0}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spec(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LaunchSpec]:
    """A worker with the poet at scale 0.5 and the clerk at 0 by default."""
    directory = tmp_path_factory.mktemp("adapted")
    adapters = [
        Adapter("poet", str(write_lora(directory / "poet.gguf", starter_model, seed=1)), 0.5),
        Adapter("clerk", str(write_lora(directory / "clerk.gguf", starter_model, seed=2)), 0.0),
    ]
    async with worker_process(directory, starter_model, LOAD, adapters=adapters) as launched:
        yield launched


async def answer(client: WorkerClient, call: int, lora: Any = (), text: str = PROMPT, **sampling: Any) -> str:
    settings = {"temperature": 0, "max_tokens": 20, "ignore_eos": True, **sampling}
    await client.submit(call, text, sampling=settings, lora=lora)
    texts, ends = await client.finish(call)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    return texts[0]


async def test_a_scale_changes_the_text_and_zero_is_the_model_alone(
    client: WorkerClient, starter_model: Path, tmp_path: Path
) -> None:
    base, half, full, clerk = [await answer(client, i, each) for i, each in enumerate((BASE, HALF, FULL, CLERK))]
    assert len({base, half, full, clerk}) == 4
    assert await answer(client, 9) == half, "the instance's own scales"
    async with worker_process(tmp_path, starter_model, LOAD) as bare, WorkerClient(bare) as other:
        assert await answer(other, 1) == base


async def test_log_probabilities_at_scale_zero_are_exactly_those_of_the_model_alone(
    client: WorkerClient, starter_model: Path, tmp_path: Path
) -> None:
    async with worker_process(tmp_path, starter_model, LOAD) as bare, WorkerClient(bare) as other:
        odds = [await logprobs(each, lora) for each, lora in ((client, BASE), (other, ()), (client, FULL))]
    assert odds[0] == odds[1] != odds[2]


async def logprobs(client: WorkerClient, lora: Any) -> list[float]:
    await client.submit(1, PROMPT, sampling={"temperature": 0, "max_tokens": 12}, logprobs=0, lora=lora)
    found: list[float] = []
    while not (event := await client.next(1)).HasField("finished"):
        found += [each.logprob for each in event.delta.logprobs]
    return found


async def test_concurrent_requests_with_different_scales_give_the_same_as_alone(client: WorkerClient) -> None:
    kinds = [BASE, HALF, FULL, CLERK]
    alone = [await answer(client, i, each, OTHER) for i, each in enumerate(kinds)]
    await client.submit(50, OTHER, sampling={"ignore_eos": True, "max_tokens": 300}, lora=BASE)
    assert (await client.next(50)).HasField("accepted")
    together = [
        await asyncio.gather(*(answer(client, first + i, each, OTHER) for i, each in enumerate(kinds[1:])))
        for first in (100, 200)
    ]
    await client.cancel(50)
    assert together == [alone[1:]] * 2


async def test_a_cached_prompt_is_reused_only_with_the_same_adapters(client: WorkerClient) -> None:
    text = "The same long beginning, again and again, for the cache to know. " * 8
    kinds = [BASE, FULL, CLERK, FULL, BASE, CLERK]
    cached = [await cached_tokens(client, call, lora, text) for call, lora in enumerate(kinds)]
    assert cached[:3] == [0, 0, 0]
    assert all(tokens > 32 for tokens in cached[3:])


async def cached_tokens(client: WorkerClient, call: int, lora: Any, text: str) -> int:
    await client.submit(call, text=text, sampling={"temperature": 0, "max_tokens": 2}, lora=lora)
    _, ends = await client.finish(call)
    return ends[0].finished.statistics.cached_tokens


async def test_choices_of_a_request_share_its_prompt_and_its_adapters(client: WorkerClient) -> None:
    await client.submit(1, PROMPT, choices=3, sampling={"temperature": 0, "max_tokens": 1}, lora=FULL)
    texts, _ = await client.finish(1, choices=3)
    assert texts == [await answer(client, 2, FULL, max_tokens=1)] * 3


@pytest.mark.parametrize(("adapter", "param"), [({"id": 2}, "lora[0].id"), ({"name": "baker"}, "lora[0].name")])
async def test_an_unknown_adapter_is_rejected_with_the_known_ones(
    client: WorkerClient, adapter: dict[str, Any], param: str
) -> None:
    await client.submit(1, "hi", lora=[{**adapter, "scale": 1.0}])
    error = (await client.next(1)).failed.error
    assert (error.code, error.param) == ("invalid_value", param)
    assert '0 "poet", 1 "clerk"' in error.message


async def test_an_adapter_for_another_model_shape_fails_the_load_with_the_reason(
    starter_model: Path, tmp_path: Path
) -> None:
    stranger = Adapter("stranger", str(write_lora(tmp_path / "stranger.gguf", starter_model, width=64)), 1.0)
    with pytest.raises(RuntimeError, match='adapter "stranger" could not be loaded'):
        async with worker_process(tmp_path, starter_model, LOAD, adapters=[stranger]):
            pass
