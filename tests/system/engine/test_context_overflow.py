"""Prompts that are longer than the context, with the real model: one worker process, driven over gRPC."""

import json
from typing import Any

import pytest

from atelier.launch import LaunchSpec
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

CONTEXT = 1024  # the worker's
MAX_TOKENS = 16
STORY = " ".join(f"Item {number} is a word." for number in range(30))


def exchange(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"Tell me of number {number}. {STORY}"},
        {"role": "assistant", "content": f"That was number {number}."},
    ]


SYSTEM = {"role": "system", "content": "You are brief."}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
MESSAGES = [SYSTEM, *(message for number in range(12) for message in exchange(number)), QUESTION]


async def answer(client: WorkerClient, call: int, policy: str, **prompt: Any) -> tuple[pb.Accepted, str]:
    sampling = {"max_tokens": MAX_TOKENS, "temperature": 0, "context_overflow": policy}
    await client.submit(call, sampling=sampling, **prompt)
    first = await client.next(call)
    assert first.HasField("accepted"), first.failed.error.message
    texts, ends = await client.finish(call)
    assert ends[0].HasField("finished"), ends[0].failed.error.message
    return first.accepted, texts[0]


def chat(messages: list[dict[str, str]]) -> pb.Chat:
    return pb.Chat(messages_json=json.dumps(messages).encode())


async def test_a_chat_beyond_the_context_is_rejected_by_default(client: WorkerClient) -> None:
    await client.submit(1, chat=chat(MESSAGES), sampling={"max_tokens": MAX_TOKENS})
    assert (await client.next(1)).failed.error.code == "context_length_exceeded"


async def test_a_rolling_window_answers_as_if_the_oldest_messages_had_not_been_sent(client: WorkerClient) -> None:
    accepted, text = await answer(client, 1, "rollingWindow", chat=chat(MESSAGES))
    assert accepted.dropped_messages > 0
    assert accepted.dropped_messages % 2 == 0
    assert accepted.prompt_tokens <= CONTEXT - MAX_TOKENS
    rest = [SYSTEM, *MESSAGES[1 + accepted.dropped_messages :]]
    short, same = await answer(client, 2, "stopAtLimit", chat=chat(rest))
    assert (short.prompt_tokens, short.dropped_messages, same) == (accepted.prompt_tokens, 0, text)
    one_more = [SYSTEM, *MESSAGES[1 + accepted.dropped_messages - 2 :]]
    assert (await answer(client, 3, "rollingWindow", chat=chat(one_more)))[0].dropped_messages == 2


async def test_a_truncated_middle_keeps_the_first_exchange(client: WorkerClient) -> None:
    accepted, text = await answer(client, 1, "truncateMiddle", chat=chat(MESSAGES))
    rest = [*MESSAGES[:3], *MESSAGES[3 + accepted.dropped_messages :]]
    _, same = await answer(client, 2, "stopAtLimit", chat=chat(rest))
    assert same == text


async def test_one_long_message_loses_its_middle(client: WorkerClient) -> None:
    long = [SYSTEM, {"role": "user", "content": f"{STORY * 8} What is the capital of France?"}]
    accepted, _ = await answer(client, 1, "truncateMiddle", chat=chat(long))
    assert accepted.prompt_tokens == CONTEXT - MAX_TOKENS
    assert accepted.dropped_tokens > 0
    await client.submit(2, chat=chat(long), sampling={"context_overflow": "rollingWindow"})
    assert (await client.next(2)).failed.error.code == "context_length_exceeded"


async def test_a_text_keeps_its_end_and_leaves_room_for_an_unlimited_answer(
    client: WorkerClient, spec: LaunchSpec
) -> None:
    text = f"{STORY * 8} The capital of France is"
    await client.submit(1, text=text, sampling={"context_overflow": "rollingWindow", "ignore_eos": True})
    accepted = (await client.next(1)).accepted
    tokens = len(
        (
            await client.stub.Tokenize(
                pb.TokenizeRequest(instance_id=spec.instance_id, text=text), metadata=client.metadata
            )
        ).ids
    )
    assert accepted.prompt_tokens == CONTEXT - CONTEXT // 8
    assert accepted.prompt_tokens + accepted.dropped_tokens == tokens
    _, ends = await client.finish(1)
    assert ends[0].finished.reason == pb.CONTEXT_LENGTH_REACHED
    assert ends[0].finished.statistics.predicted_tokens == CONTEXT // 8
