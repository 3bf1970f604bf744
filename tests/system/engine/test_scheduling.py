"""Running and waiting sequences, deadlines and priorities with the real model: one worker process, driven over gRPC."""

import pytest

from atelier.launch import LaunchSpec
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WorkerClient

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

SLOTS = 8  # the worker's
LONG_PROMPT = "unusual " * 450


async def sequences(client: WorkerClient, spec: LaunchSpec) -> list[pb.Sequence]:
    request = pb.ListSequencesRequest(instance_id=spec.instance_id)
    reply = await client.stub.ListSequences(request, metadata=client.metadata, timeout=30)
    return list(reply.sequences)


async def begun(client: WorkerClient, call: int) -> None:
    while not (await client.next(call)).HasField("delta"):
        pass


async def test_running_and_waiting_sequences_are_listed(client: WorkerClient, spec: LaunchSpec) -> None:
    assert await sequences(client, spec) == []
    for call in range(SLOTS):
        await client.submit(call, "Tell me a long story.", sampling={"ignore_eos": True}, request_id=f"run-{call}")
        await begun(client, call)
    await client.submit(SLOTS, "I wait.", request_id="wait", priority=2)
    assert (await client.next(SLOTS)).HasField("accepted")
    *running, waiting = await sequences(client, spec)
    assert {each.request_id for each in running} == {f"run-{call}" for call in range(SLOTS)}
    assert all(each.state == pb.SEQUENCE_DECODE and each.predicted_tokens > 0 for each in running)
    assert (waiting.request_id, waiting.state, waiting.priority) == ("wait", pb.SEQUENCE_WAITING, 2)
    for call in range(SLOTS + 1):
        await client.cancel(call)


async def test_a_call_past_its_deadline_ends_in_every_state_and_frees_its_sequence(
    client: WorkerClient, spec: LaunchSpec
) -> None:
    await client.submit(1, "Tell me a long story.", sampling={"ignore_eos": True}, timeout_seconds=1.0)
    texts, ends = await client.finish(1)
    assert texts[0]
    assert ends[0].failed.error.code == "timeout"
    await client.submit(2, LONG_PROMPT, timeout_seconds=0.3)  # its prompt takes longer
    assert (await client.next(2)).HasField("accepted")
    assert (await client.next(2)).failed.error.code == "timeout"
    assert await sequences(client, spec) == []


async def test_a_more_urgent_call_starts_first(client: WorkerClient) -> None:
    for call in range(SLOTS):
        await client.submit(call, "Tell me a story.", sampling={"ignore_eos": True})
        await begun(client, call)
    for call, priority in ((10, 1), (11, -1)):
        await client.submit(call, "Hello!", sampling={"max_tokens": 1}, priority=priority)
        assert (await client.next(call)).HasField("accepted")
    await client.cancel(0)
    await client.finish(11)
    await client.finish(10)
    ends = [event.call for step in client.steps for event in step.events if event.HasField("finished")]
    assert ends == [11, 10]
    for call in range(1, SLOTS):
        await client.cancel(call)
