"""The connections to the workers: each has one Generate stream, which carries all of this gateway's generations."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc.aio
import structlog

from atelier.errors import AtelierError, PayloadTooLarge, WorkerLost, from_message
from atelier.rpc import ERROR_KEY, MAX_MESSAGE_BYTES, from_rpc_error, open_channel, token_metadata
from gateway.core.inbox import Inbox
from gateway.core.wire import read_dropped, read_echoed_logprobs, read_finished, read_logprobs, read_tool_call
from gateway.fleet.snapshot import Instance, Launch, Snapshot
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceStub

MOST_SUBMIT_BYTES = MAX_MESSAGE_BYTES - 4 * 2**20
# What gRPC itself reports when the worker is gone: no connection, or a call dropped by its server.
_LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

_log = structlog.get_logger(__name__)


class UnaryRequest(Protocol):
    """A request message that names the instance it is meant for."""

    instance_id: str

    def ByteSize(self) -> int: ...


Request = TypeVar("Request", bound=UnaryRequest)
Reply = TypeVar("Reply")

if TYPE_CHECKING:  # the stubs of asyncio's channels, and generic methods of theirs, exist for type checkers only
    from protos.inference_pb2_grpc import InferenceAsyncStub

    Method = Callable[[InferenceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Reply]]
    """One of the stub's unary methods: `lambda stub: stub.Embed`."""


class Submission:
    """One call on the stream: where its events go, and how many choices have not ended."""

    __slots__ = ("choices_left", "first_choice", "inbox", "number", "wants_logprobs")

    def __init__(self, number: int, inbox: Inbox, first_choice: int, choices: int, *, wants_logprobs: bool) -> None:
        self.number = number
        self.inbox = inbox
        self.first_choice = first_choice  # the request's number of this call's choice 0
        self.choices_left = choices
        self.wants_logprobs = wants_logprobs


class WorkerConnection:
    """Owns the stream, its call numbers and its open calls. A lost stream fails them and ends the connection."""

    def __init__(self, instance: Instance, on_end: Callable[["WorkerConnection"], None]) -> None:
        self.instance = instance
        self.in_flight = 0  # choices that have not ended, and unary calls
        self.ended = False
        self._on_end = on_end
        self._calls: dict[int, Submission] = {}
        self._numbers = itertools.count(1)
        self._commands: asyncio.Queue[pb.Command | None] = asyncio.Queue()
        self._channel = open_channel(instance.address)
        self._stub = InferenceStub(self._channel)
        self._reader = asyncio.create_task(self._read())

    def submit(self, submit: pb.Submit, inbox: Inbox, first_choice: int) -> Submission:
        """Send the call; its events are added to the inbox. Raises WorkerLost when the stream has ended."""
        if self.ended:
            raise WorkerLost()
        _check_size(submit)  # gRPC would end the stream, and with it every other request's calls
        submission = Submission(
            next(self._numbers), inbox, first_choice, submit.choices, wants_logprobs=submit.HasField("logprobs")
        )
        submit.call = submission.number
        submit.instance_id = self.instance.id
        self._calls[submission.number] = submission
        self.in_flight += submit.choices
        self._commands.put_nowait(pb.Command(submit=submit))
        return submission

    def cancel(self, submission: Submission) -> None:
        """Stop the call at the worker, unless it has ended."""
        if submission.number in self._calls:
            self._forget(submission)
            self._commands.put_nowait(pb.Command(cancel=pb.Cancel(call=submission.number)))

    async def ask(self, method: "Method[Request, Reply]", request: Request, seconds: float) -> Reply:
        """A unary call. Raises WorkerLost or WorkerRefused where another worker may answer it."""
        if self.ended:
            raise WorkerLost()
        _check_size(request)
        request.instance_id = self.instance.id
        self.in_flight += 1
        try:
            metadata = token_metadata(self.instance.token)
            return await method(self._stub)(request, metadata=metadata, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise _unanswered(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise WorkerLost() from None  # the channel was closed, as the stream on it had ended
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        self._commands.put_nowait(None)
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            steps = self._stub.Generate(self._outgoing(), metadata=token_metadata(self.instance.token))
            async for step in steps:
                self._deliver(step)
        except grpc.aio.AioRpcError as error:
            _log.warning("worker_stream_lost", instance=self.instance.id, reason=from_rpc_error(error).message)
        finally:
            self._end()
            await self._channel.close()

    async def _outgoing(self) -> AsyncIterator[pb.Command]:
        while (command := await self._commands.get()) is not None:
            yield command

    def _end(self) -> None:
        self.ended = True
        self._commands.put_nowait(None)
        for submission in list(self._calls.values()):
            self._forget(submission)
            submission.inbox.fail(WorkerLost())
        self._on_end(self)

    def _deliver(self, step: pb.Step) -> None:
        for event in step.events:
            submission = self._calls.get(event.call)
            if submission is None:
                continue  # cancelled, which the worker may not have read yet
            kind = event.WhichOneof("event")
            if kind == "delta":
                self._take_delta(submission, submission.first_choice + event.choice, event.delta)
            else:
                self._settle(submission, kind, event)

    def _take_delta(self, submission: Submission, choice: int, delta: pb.Delta) -> None:
        inbox = submission.inbox
        if delta.reasoning:
            inbox.add_reasoning(choice, delta.reasoning)
        inbox.add_text(choice, delta.text, delta.tokens)
        if submission.wants_logprobs:
            inbox.add_logprobs(choice, read_logprobs(delta))
        for piece in delta.tool_calls:
            inbox.add_tool_call(choice, read_tool_call(piece))

    def _settle(self, submission: Submission, kind: str | None, event: pb.Event) -> None:
        match kind:
            case "accepted":
                accepted = event.accepted
                submission.inbox.accept(accepted.prompt_tokens, accepted.unenforced, read_dropped(accepted))
            case "prompt_progress":
                progress = event.prompt_progress
                submission.inbox.add_progress(
                    submission.first_choice, progress.prompt_tokens, progress.cached_tokens, progress.done_tokens
                )
            case "echoed":
                choice = submission.first_choice + event.choice
                submission.inbox.add_text(choice, event.echoed.text, 0)
                submission.inbox.add_logprobs(choice, read_echoed_logprobs(event.echoed))
            case "finished":
                submission.inbox.add_end(read_finished(event.finished, submission.first_choice + event.choice))
                submission.choices_left -= 1
                self.in_flight -= 1
                if submission.choices_left == 0:
                    del self._calls[submission.number]
            case "failed":
                self._forget(submission)
                submission.inbox.fail(refusal(from_message(event.failed.error)))

    def _forget(self, submission: Submission) -> None:
        del self._calls[submission.number]
        self.in_flight -= submission.choices_left


class Workers:
    """Owns one connection to each worker process that was called; the first call opens it.

    A connection whose stream was lost is dropped: the next call opens a new one.
    """

    def __init__(self) -> None:
        self._connections: dict[Launch, WorkerConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self, instance: Instance) -> WorkerConnection:
        connection = self._connections.get(instance.launch)
        if connection is None or connection.ended:
            connection = self._connections[instance.launch] = WorkerConnection(instance, self._drop)
        return connection

    def in_flight(self) -> Mapping[str, int]:
        """Choices and unary calls in flight, by instance id."""
        counts: Counter[str] = Counter()
        for connection in self._connections.values():
            counts[connection.instance.id] += connection.in_flight
        return counts

    def follow(self, snapshot: Snapshot) -> None:
        """Close the idle connections to processes that are gone; a busy one ends with its worker."""
        known = {instance.launch for instance in snapshot.instances.values()}
        for launch, connection in list(self._connections.items()):
            if launch not in known and not connection.in_flight:
                del self._connections[launch]
                task = asyncio.create_task(connection.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in list(self._connections.values())), *self._closing)

    def _drop(self, connection: WorkerConnection) -> None:
        if self._connections.get(connection.instance.launch) is connection:
            del self._connections[connection.instance.launch]


class WorkerRefused(Exception):
    """The worker does not accept calls now, or is another instance's: a different worker may answer."""

    def __init__(self, error: AtelierError) -> None:
        super().__init__(error.message)
        self.error = error


def refusal(error: AtelierError) -> Exception:
    """Errors that are about the worker's state rather than about the call become WorkerRefused."""
    return WorkerRefused(error) if error.code in {"draining", "instance_not_found", "unavailable"} else error


def as_reported(error: WorkerLost | WorkerRefused) -> AtelierError:
    """The error for the client, when no other worker is tried."""
    return error.error if isinstance(error, WorkerRefused) else error


def _check_size(message: pb.Submit | UnaryRequest) -> None:
    if message.ByteSize() > MOST_SUBMIT_BYTES:
        raise PayloadTooLarge("The prompt is larger than a worker accepts in one message.")


def _unanswered(error: grpc.aio.AioRpcError) -> Exception:
    from_worker = any(key == ERROR_KEY for key, _ in error.trailing_metadata() or ())
    if error.code() in _LOST and not from_worker:
        return WorkerLost()
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not from_worker:
        return PayloadTooLarge("The reply is larger than a worker sends in one message: request less at once.")
    return refusal(from_rpc_error(error))
