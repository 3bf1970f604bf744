"""The worker's service over the real wire, with the scripted engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from atelier.errors import InstanceNotFound, LoadFailed, Unauthenticated
from atelier.launch import LaunchSpec
from atelier.rpc import from_rpc_error
from atelier.settings import Load
from protos import inference_pb2 as pb
from tests.support.worker.worker_client import WAIT_SECONDS, WorkerClient
from worker.engine.scripted import ScriptedEngine
from worker.server import WorkerServer

Start = Callable[..., Awaitable[tuple[WorkerServer, WorkerClient]]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts scripted workers; `load` and `script` are the launch's."""
    async with AsyncExitStack() as stack:

        async def start_one(
            load: Load | None = None, grace: float = 60, **script: Any
        ) -> tuple[WorkerServer, WorkerClient]:
            spec = LaunchSpec(
                instance_id="a/b",
                engine="scripted",
                model_path="",
                load=load or Load(),
                address=f"unix:{tmp_path}/w.sock",
                token="secret",
                grace_seconds=grace,
                script=script,
            )
            server = WorkerServer(spec)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            client = await stack.enter_async_context(WorkerClient(spec))
            return server, client

        yield start_one


def release(server: WorkerServer) -> None:
    assert isinstance(server.engine, ScriptedEngine)
    server.engine.release()


async def bounded(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, WAIT_SECONDS)


async def test_a_call_is_accepted_then_answered_then_finished(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    await client.submit(1, "one two three")
    accepted = await client.next(1)
    assert accepted.accepted.prompt_tokens == 3
    texts, ends = await client.finish(1)
    assert texts == ["one two three"]
    assert ends[0].finished.reason == pb.EOS_FOUND
    assert ends[0].finished.statistics.predicted_tokens == 3


async def test_all_events_of_a_step_are_sent_in_one_message(start: Start) -> None:
    server, client = await start(hold=True)
    await server.wait_ready()
    for call in range(4):
        await client.submit(call, "one two three")
    for call in range(4):
        await client.next(call)
    release(server)
    for call in range(4):
        await client.finish(call)
    assert any({event.call for event in step.events} == {0, 1, 2, 3} for step in client.steps)


async def test_choices_are_distinguished(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    await client.submit(1, "a b", choices=3)
    texts, ends = await client.finish(1, choices=3)
    assert texts == ["a b"] * 3
    assert sorted(end.choice for end in ends) == [0, 1, 2]


async def test_calls_beyond_the_number_of_sequences_are_queued(start: Start) -> None:
    server, client = await start(Load(parallel=2))
    await server.wait_ready()
    for call in range(10):
        await client.submit(call, "a b c")
    for call in range(10):
        texts, _ = await client.finish(call)
        assert texts == ["a b c"]


async def test_a_call_with_a_lower_priority_starts_first(start: Start) -> None:
    server, client = await start(Load(parallel=1), hold=True)
    await server.wait_ready()
    for call, priority in enumerate((3, 0, -3)):
        await client.submit(call, "a b", priority=priority)
        await client.next(call)
    release(server)
    for call in range(3):
        await client.finish(call)
    ends = [event.call for step in client.steps for event in step.events if event.HasField("finished")]
    assert ends == [2, 1, 0]


async def test_a_priority_out_of_bounds_is_rejected(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    await client.submit(1, "a", priority=-11)
    assert (await client.next(1)).failed.error.param == "priority"


ENDLESS = {"text": "word " * 100_000, "step_seconds": 0.001}


async def test_a_call_past_its_deadline_fails_in_the_middle_of_its_answer(start: Start) -> None:
    server, client = await start(**ENDLESS)
    await server.wait_ready()
    await client.submit(1, "a", timeout_seconds=1)
    texts, ends = await client.finish(1)
    assert texts[0].startswith("word word")
    assert ends[0].failed.error.code == "timeout"
    assert server.engine.figures().active == 0


@pytest.mark.parametrize(
    ("limit", "code"), [("timeout_seconds", "timeout"), ("queue_timeout_seconds", "queue_timeout")]
)
async def test_a_queued_call_past_its_deadline_fails(start: Start, limit: str, code: str) -> None:
    server, client = await start(Load(parallel=1), **ENDLESS)
    await server.wait_ready()
    await client.submit(1, "a")
    await client.next(1)
    await client.submit(2, "b", **{limit: 0.05})
    assert (await client.next(2)).HasField("accepted")
    assert (await client.next(2)).failed.error.code == code
    assert (server.engine.figures().active, server.engine.figures().queued) == (1, 0)


async def test_a_cancelled_call_frees_its_sequence(start: Start) -> None:
    server, client = await start(Load(parallel=1), hold=True)
    await server.wait_ready()
    await client.submit(1, "never answered")
    await client.next(1)
    await client.cancel(1)
    await client.submit(2, "answered")
    release(server)
    texts, _ = await client.finish(2)
    assert texts == ["answered"]
    assert server.engine.figures().queued == 0


async def test_a_disconnected_gateway_frees_its_sequences(start: Start) -> None:
    server, client = await start(Load(parallel=1), hold=True)
    await server.wait_ready()
    async with WorkerClient(client._spec) as gone:
        await gone.submit(1, "never answered")
        await gone.next(1)
    await client.submit(1, "answered")
    release(server)
    texts, _ = await client.finish(1)
    assert texts == ["answered"]


async def test_a_call_for_another_instance_is_rejected(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    await client.submit(1, "hi", instance_id="c/d")
    event = await client.next(1)
    assert event.failed.error.code == InstanceNotFound.code


async def test_a_prompt_beyond_the_context_is_rejected_and_the_next_call_works(start: Start) -> None:
    server, client = await start(Load(context_length=128))
    await server.wait_ready()
    await client.submit(1, "word " * 200)
    assert (await client.next(1)).failed.error.code == "context_length_exceeded"
    await client.submit(2, "short")
    assert (await client.finish(2))[0] == ["short"]


async def test_a_call_number_in_use_is_rejected_without_affecting_the_first(start: Start) -> None:
    server, client = await start(hold=True)
    await server.wait_ready()
    await client.submit(1, "first")
    assert (await client.next(1)).HasField("accepted")
    await client.submit(1, "second")
    assert (await client.next(1)).failed.error.code == "invalid_value"
    release(server)
    assert (await client.finish(1))[0] == ["first"]


async def test_a_call_without_the_launchs_token_is_rejected(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    stranger = WorkerClient(client._spec, token="guess")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stranger.stub.Describe(pb.DescribeRequest(instance_id="a/b"), metadata=stranger.metadata)
    assert isinstance(from_rpc_error(caught.value), Unauthenticated)
    await stranger.channel.close()


async def test_health_turns_serving_when_the_model_is_loaded_and_off_when_it_drains(start: Start) -> None:
    server, client = await start(hold=True)
    health: Any = health_pb2_grpc.HealthStub(client.channel)
    await server.wait_ready()
    await client.submit(1, "running")
    await client.next(1)
    states = health.Watch(health_pb2.HealthCheckRequest())
    assert (await bounded(states.read())).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.create_task(server.stop(WAIT_SECONDS))
    assert (await bounded(states.read())).status == health_pb2.HealthCheckResponse.NOT_SERVING
    release(server)
    await bounded(stopping)


async def test_the_status_stream_reports_loading_then_ready(start: Start) -> None:
    server, client = await start(load_hold=True)
    statuses = client.stub.Supervise(pb.SuperviseRequest(instance_id="a/b"), metadata=client.metadata)
    assert (await bounded(statuses.read())).state == pb.WORKER_LOADING
    release(server)
    while (await bounded(statuses.read())).state != pb.WORKER_READY:
        pass


async def test_an_idle_worker_without_a_registry_exits(start: Start) -> None:
    server, _ = await start(grace=0.05)
    await server.wait_ready()
    await bounded(server.run(asyncio.Event()))


async def test_a_busy_worker_without_a_registry_keeps_running(start: Start) -> None:
    server, client = await start(grace=0.05, hold=True)
    await server.wait_ready()
    await client.submit(1, "one two")
    await client.next(1)
    run = asyncio.create_task(server.run(asyncio.Event()))
    await asyncio.wait([run], timeout=0.3)
    assert not run.done()
    release(server)
    assert (await client.finish(1))[0] == ["one two"]
    await bounded(run)


async def test_an_invalid_call_does_not_affect_others_on_the_stream(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    await client.submit(1, chat=pb.Chat(messages_json=b"{"))
    assert (await client.next(1)).failed.error.param == "messages"
    await client.submit(2, "answered")
    assert (await client.finish(2))[0] == ["answered"]


async def test_a_failed_load_is_reported_with_its_reason(start: Start) -> None:
    server, client = await start(load_error="no such architecture")
    with pytest.raises(LoadFailed):
        await server.wait_ready()
    async for status in client.stub.Supervise(pb.SuperviseRequest(instance_id="a/b"), metadata=client.metadata):
        assert status.state == pb.WORKER_FAILED
        assert status.error.message == "no such architecture"
        break


async def test_a_running_call_finishes_before_the_worker_stops(start: Start) -> None:
    server, client = await start(hold=True)
    await server.wait_ready()
    await client.submit(1, "one two")
    await client.next(1)
    stopping = asyncio.create_task(server.stop(WAIT_SECONDS))
    await asyncio.sleep(0)
    await client.submit(2, "too late")
    assert (await client.next(2)).failed.error.code == "draining"
    release(server)
    assert (await client.finish(1))[0] == ["one two"]
    await bounded(stopping)


async def test_a_call_that_outlasts_the_grace_period_fails(start: Start) -> None:
    server, client = await start(hold=True)
    await server.wait_ready()
    await client.submit(1, "one two")
    await client.next(1)
    await server.stop(0)
    _, ends = await client.finish(1)
    assert ends[0].failed.error.code == "draining"


async def test_shutdown_ends_the_workers_run(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    run = asyncio.create_task(server.run(asyncio.Event()))
    await client.stub.Shutdown(pb.ShutdownRequest(instance_id="a/b", grace_seconds=1), metadata=client.metadata)
    await bounded(run)


async def test_describe_returns_the_loaded_model(start: Start) -> None:
    server, client = await start(Load(context_length=2048, parallel=3, speculation="auto"))
    await server.wait_ready()
    reply = await client.stub.Describe(pb.DescribeRequest(instance_id="a/b"), metadata=client.metadata)
    assert (reply.engine, reply.context_length, reply.parallel) == ("scripted", 2048, 3)
    assert (reply.load.context_length, reply.load.speculation) == (2048, "auto")


async def test_calls_in_progress_are_listed_without_their_text(start: Start) -> None:
    server, client = await start(Load(parallel=1), **ENDLESS)
    await server.wait_ready()
    await client.submit(1, "my secret", request_id="first", priority=-1)
    while not (await client.next(1)).HasField("delta"):
        pass
    await client.submit(2, "another secret", request_id="second", choices=2)
    await client.next(2)
    request = pb.ListSequencesRequest(instance_id="a/b")
    reply = await bounded(client.stub.ListSequences(request, metadata=client.metadata))
    running, *waiting = reply.sequences
    assert (running.request_id, running.state, running.priority) == ("first", pb.SEQUENCE_DECODE, -1)
    assert (running.prompt_tokens, running.done_tokens) == (2, 2)
    assert running.predicted_tokens > 0
    assert [(each.request_id, each.choice, each.state) for each in waiting] == [
        ("second", 0, pb.SEQUENCE_WAITING),
        ("second", 1, pb.SEQUENCE_WAITING),
    ]
    assert running.age_seconds >= waiting[0].age_seconds >= 0
    assert b"secret" not in reply.SerializeToString()


async def test_a_loading_worker_has_no_calls_in_progress(start: Start) -> None:
    _, client = await start(load_hold=True)
    request = pb.ListSequencesRequest(instance_id="a/b")
    reply = await bounded(client.stub.ListSequences(request, metadata=client.metadata))
    assert not reply.sequences


async def test_tokenize_gives_ids_with_their_bytes(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    for add_special, begin in ((None, "<s>"), (True, "<s>"), (False, "")):
        request = pb.TokenizeRequest(instance_id="a/b", text="héllo wörld", add_special=add_special)
        reply = await bounded(client.stub.Tokenize(request, metadata=client.metadata))
        assert b"".join(reply.pieces).decode() == f"{begin}héllo wörld"


async def test_tokens_are_detokenized_and_chats_rendered(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    tokens = pb.DetokenizeRequest(instance_id="a/b", tokens=pb.Tokens(ids=[5, 6]))
    assert (await bounded(client.stub.Detokenize(tokens, metadata=client.metadata))).text == "5 6"
    chat = pb.Chat(messages_json=b'[{"role": "user", "content": "hi"}]', template_arguments_json=b'{"a": 1}')
    asked = pb.ApplyTemplateRequest(instance_id="a/b", chat=chat)
    assert (await bounded(client.stub.ApplyTemplate(asked, metadata=client.metadata))).prompt == (
        "a: 1\nuser: hi\nassistant:"
    )


@pytest.mark.parametrize("method", ["Detokenize", "ApplyTemplate"])
async def test_tokens_and_chats_for_another_instance_are_rejected(start: Start, method: str) -> None:
    server, client = await start()
    await server.wait_ready()
    request = getattr(pb, f"{method}Request")(instance_id="a/b:2")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bounded(getattr(client.stub, method)(request, metadata=client.metadata))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_inputs_are_embedded_with_the_requested_dimensions(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    request = pb.EmbedRequest(instance_id="a/b", texts=["one", "two"], dimensions=2)
    reply = await bounded(client.stub.Embed(request, metadata=client.metadata))
    assert [list(embedding.values) for embedding in reply.embeddings] == [[1, 0], [1, 0]]
    assert reply.prompt_tokens == 2


async def test_rankings_are_returned_in_document_order(start: Start) -> None:
    server, client = await start()
    await server.wait_ready()
    request = pb.RerankRequest(instance_id="a/b", query="blue sea", documents=["bread", "blue sea", "blue sky"])
    scores = (await bounded(client.stub.Rerank(request, metadata=client.metadata))).scores
    assert scores[1] > scores[2] > scores[0]
    request.instance_id = "x/y"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bounded(client.stub.Rerank(request, metadata=client.metadata))
    assert isinstance(from_rpc_error(caught.value), InstanceNotFound)
