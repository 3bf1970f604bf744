"""Speculation with the real model: the texts are those of a worker without it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from atelier.settings import Load
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

LIST = " ".join(f"Item {number} is a word." for number in range(20))
PROMPTS = [f"Repeat this: {LIST}", "Count from one to twenty.", "Name three colours, and then name them again."]
SCHEMA = json.dumps({"enum": ["a long answer that leaves no choice", "another answer"]})
GREEDY = {"temperature": 0, "repeat_penalty": 1.0}
DRAWN = {"temperature": 0.8, "seed": 5, "repeat_penalty": 1.0}
SPECULATIONS = ("prompt_lookup", "draft_model")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerClient]:
    """A worker without speculation."""
    load = Load(context_length=1024, parallel=4, reproducible=True)
    async with worker_process(tmp_path_factory.mktemp("plain"), starter_model, load) as spec, WorkerClient(spec) as it:
        yield it


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SPECULATIONS)
async def guessing(
    request: pytest.FixtureRequest, starter_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WorkerClient]:
    """A worker with speculation; as a draft model the model drafts for itself."""
    load = Load(context_length=1024, parallel=4, reproducible=True, speculation=request.param)
    directory, draft = tmp_path_factory.mktemp("guessing"), starter_model if request.param == "draft_model" else None
    async with worker_process(directory, starter_model, load, draft) as spec, WorkerClient(spec) as it:
        yield it


async def answer(client: WorkerClient, call: int, text: str, **options: Any) -> tuple[str, pb.Finished]:
    sampling = {"max_tokens": 28, **options.pop("sampling", {})}
    await client.submit(call, text, sampling=sampling, **options)
    texts, ends = await client.finish(call)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    return texts[0], ends[0].finished


async def answers(client: WorkerClient, first: int, sampling: dict[str, Any]) -> list[tuple[str, pb.Finished]]:
    """The answers to all prompts at once."""
    calls = (answer(client, first + i, prompt, sampling=sampling) for i, prompt in enumerate(PROMPTS))
    return list(await asyncio.gather(*calls))


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
async def test_speculation_changes_no_text(
    plain: WorkerClient, guessing: WorkerClient, sampling: dict[str, Any]
) -> None:
    expected = [(await answer(plain, 100 + i, each, sampling=sampling))[0] for i, each in enumerate(PROMPTS)]
    alone = [await answer(guessing, 200 + i, each, sampling=sampling) for i, each in enumerate(PROMPTS)]
    together = await answers(guessing, 300, sampling)
    assert [text for text, _ in alone] == expected
    assert [text for text, _ in together] == expected
    assert sum(end.statistics.accepted_draft_tokens for _, end in (*alone, *together)) > 0


@pytest.mark.parametrize("guessing", ["draft_model"], indirect=True)
async def test_drafts_of_the_same_model_are_accepted(guessing: WorkerClient) -> None:
    ends = [end.statistics for _, end in await answers(guessing, 600, GREEDY)]
    drafted, accepted = (sum(getattr(end, name) for end in ends) for name in ("draft_tokens", "accepted_draft_tokens"))
    assert accepted > 20
    assert accepted / drafted > 0.95


async def test_sequences_that_cannot_speculate_run_beside_those_that_do(
    plain: WorkerClient, guessing: WorkerClient
) -> None:
    async def mixed(client: WorkerClient) -> list[tuple[str, pb.Finished]]:
        return list(
            await asyncio.gather(
                answer(client, 400, PROMPTS[0], sampling=GREEDY),
                answer(client, 401, PROMPTS[1], sampling=GREEDY, logprobs=2),
                answer(client, 402, PROMPTS[2], sampling=GREEDY, json_schema=SCHEMA),
            )
        )

    expected, found = await mixed(plain), await mixed(guessing)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [end.statistics.draft_tokens > 0 for _, end in found] == [True, False, False]


async def test_a_cancelled_sequence_does_not_change_the_texts_of_others(
    plain: WorkerClient, guessing: WorkerClient
) -> None:
    expected = (await answer(plain, 500, PROMPTS[0], sampling=GREEDY))[0]
    await guessing.submit(501, PROMPTS[1], sampling={**GREEDY, "ignore_eos": True})
    other = asyncio.create_task(answer(guessing, 502, PROMPTS[0], sampling=GREEDY))
    while not (await guessing.next(501)).HasField("delta"):
        pass
    await guessing.cancel(501)
    assert (await other)[0] == expected
    assert (await answer(guessing, 503, PROMPTS[0], sampling=GREEDY))[0] == expected
