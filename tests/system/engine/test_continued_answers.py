"""Answers that are continued, with the real model: the text is the one that the model would have written at once."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from atelier.launch import LaunchSpec
from atelier.settings import Load
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient
from tests.support.worker.worker_process import worker_process

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

ASKED = [{"role": "user", "content": "Write two sentences about the sea."}]
TOKENS = 24


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spec(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LaunchSpec]:
    """A worker whose texts do not depend on how a prompt was computed."""
    directory = tmp_path_factory.mktemp("worker")
    async with worker_process(directory, starter_model, Load(context_length=1024, reproducible=True)) as launched:
        yield launched


def chat(*begun: str, end: pb.PromptEnd = pb.CONTINUED_MESSAGE, **fields: Any) -> pb.Chat:
    """The question, and the beginning of the answer."""
    messages = [*ASKED, *({"role": "assistant", "content": text} for text in begun)]
    return pb.Chat(messages_json=json.dumps(messages).encode(), end=end, **fields)


async def generated(client: WorkerClient, call: int, prompt: pb.Chat, max_tokens: int = TOKENS) -> list[pb.Delta]:
    await client.submit(call, chat=prompt, sampling={"max_tokens": max_tokens, "temperature": 0})
    deltas: list[pb.Delta] = []
    while not (event := await client.next(call)).HasField("finished"):
        assert not event.HasField("failed"), event.failed.error.message
        if event.HasField("delta"):
            deltas.append(event.delta)
    return deltas


def text_of(deltas: Sequence[pb.Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def tokens(client: WorkerClient, spec: LaunchSpec, prompt: pb.Chat) -> list[int]:
    request = pb.TokenizeRequest(instance_id=spec.instance_id, chat=prompt)
    return list((await client.stub.Tokenize(request, metadata=client.metadata)).ids)


async def test_a_text_is_the_same_written_at_once_and_continued_from_its_tokens(
    client: WorkerClient, spec: LaunchSpec
) -> None:
    deltas = await generated(client, 1, chat(end=pb.NEW_MESSAGE))
    whole = text_of(deltas)
    asked, answered = await tokens(client, spec, chat(end=pb.NEW_MESSAGE)), await tokens(client, spec, chat(whole))
    assert answered[: len(asked)] == asked, "the prompt that is continued begins as the one that is not"
    cuts = 0
    for number in range(1, len(deltas)):
        begun, written = text_of(deltas[:number]), sum(delta.tokens for delta in deltas[:number])
        if await tokens(client, spec, chat(begun)) != answered[: len(asked) + written]:
            continue  # the text up to here has other tokens than the model wrote
        cuts += 1
        rest = await generated(client, 1 + number, chat(begun), TOKENS - written)
        assert begun + text_of(rest) == whole
    assert cuts > len(deltas) // 2


async def test_a_message_may_be_closed_and_its_end_is_part_of_the_prompt(
    client: WorkerClient, spec: LaunchSpec
) -> None:
    continued = await tokens(client, spec, chat("The sea"))
    closed = await tokens(client, spec, chat("The sea", end=pb.CLOSED_MESSAGE))
    assert closed[: len(continued)] == continued
    assert len(closed) > len(continued)


async def test_a_schema_applies_to_what_is_added(client: WorkerClient) -> None:
    flag = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    sampling = {"max_tokens": TOKENS, "temperature": 0}
    await client.submit(
        1, chat=chat("Here it is: "), sampling=sampling, json_schema=json.dumps({**flag, "additionalProperties": False})
    )
    texts, _ = await client.finish(1)
    assert json.loads(texts[0]).keys() == {"a"}


async def test_a_template_that_refuses_an_answer_at_the_end_is_an_error_of_the_request(client: WorkerClient) -> None:
    refusing = "{% if messages[-1].role != 'user' %}{{ raise_exception('ask first') }}{% endif %}"
    await client.submit(1, chat=chat("The sea", template=refusing))
    error = (await client.next(1)).failed.error
    assert (error.code, "ask first" in error.message) == ("invalid_chat_template", True)
