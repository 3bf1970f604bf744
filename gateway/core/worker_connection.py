"""One worker: its channel, and the one Generate stream that carries all of this gateway's calls to it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import grpc.aio
import structlog

from atelier.errors import AtelierError, PayloadTooLarge, WorkerLost, from_message
from atelier.rpc import ERROR_KEY, MAX_MESSAGE_BYTES, from_rpc_error, open_channel, token_metadata
from atelier.submission import ToolCallPiece
from gateway.core.events import Dropped, read_echoed_logprobs, read_finished, read_logprobs
from gateway.core.inbox import Inbox
from gateway.fleet.snapshot import Instance
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceStub

MOST_SUBMIT_BYTES = MAX_MESSAGE_BYTES - 4 * 2**20
# What gRPC says of itself when the worker goes: no connection, or a call that its server dropped.
_LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

_log = structlog.get_logger(__name__)


class Submission:
    """One call on the stream: where its events go, and how many choices are to come."""

    __slots__ = ("choices_left", "first_choice", "inbox", "number", "wants_logprobs")

    def __init__(self, number: int, inbox: Inbox, first_choice: int, choices: int, *, wants_logprobs: bool) -> None:
        self.number = number
        self.inbox = inbox
        self.first_choice = first_choice  # the request's number of this call's choice 0
        self.choices_left = choices
        self.wants_logprobs = wants_logprobs


Method = Literal["Embed", "Rerank", "Tokenize", "Detokenize", "ApplyTemplate", "ListSequences"]
"""A call with one answer."""


class WorkerConnection:
    """Owns the stream, its call numbers and its open calls. A lost stream fails them and ends the connection."""

    def __init__(self, instance: Instance, on_end: Callable[["WorkerConnection"], None]) -> None:
        self.instance = instance
        self.in_flight = 0  # choices that have not ended, and calls with one answer
        self.ended = False
        self._on_end = on_end
        self._calls: dict[int, Submission] = {}
        self._numbers = itertools.count(1)
        self._commands: asyncio.Queue[pb.Command | None] = asyncio.Queue()
        self._channel = open_channel(instance.address)
        self._stub = InferenceStub(self._channel)
        self._reader = asyncio.create_task(self._read())

    def submit(self, submit: pb.Submit, inbox: Inbox, first_choice: int) -> Submission:
        """Send the call; its events come to the inbox. WorkerLost when the stream has ended."""
        if self.ended:
            raise WorkerLost()
        _check_size(submit)  # gRPC would end the stream, and everybody's calls with it
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

    async def ask(self, method: Method, request: Any, seconds: float) -> Any:
        """A call with one answer. WorkerLost or WorkerRefused where another worker may answer it."""
        if self.ended:
            raise WorkerLost()
        _check_size(request)
        request.instance_id = self.instance.id
        self.in_flight += 1
        try:
            metadata = token_metadata(self.instance.token)
            return await getattr(self._stub, method)(request, metadata=metadata, timeout=seconds)
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
                continue  # cancelled: the worker may not know yet
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
            inbox.add_tool_call(choice, ToolCallPiece(piece.index, piece.id, piece.name, piece.arguments))

    def _settle(self, submission: Submission, kind: str | None, event: pb.Event) -> None:
        match kind:
            case "accepted":
                accepted = event.accepted
                dropped = Dropped(accepted.dropped_messages, accepted.dropped_tokens)
                submission.inbox.accept(accepted.prompt_tokens, accepted.unenforced, dropped)
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


class WorkerRefused(Exception):
    """The worker does not take calls now, or is not the one that was meant: another one may."""

    def __init__(self, error: AtelierError) -> None:
        super().__init__(error.message)
        self.error = error


def refusal(error: AtelierError) -> Exception:
    """Errors that are about the worker's state rather than about the call become WorkerRefused."""
    return WorkerRefused(error) if error.code in {"draining", "instance_not_found", "unavailable"} else error


def as_told(error: WorkerLost | WorkerRefused) -> AtelierError:
    """As the client should see it, when there is no other worker to try."""
    return error.error if isinstance(error, WorkerRefused) else error


def _check_size(message: Any) -> None:
    if message.ByteSize() > MOST_SUBMIT_BYTES:
        raise PayloadTooLarge("The prompt is larger than a worker takes in one message.")


def _unanswered(error: grpc.aio.AioRpcError) -> Exception:
    told = any(key == ERROR_KEY for key, _ in error.trailing_metadata() or ())
    if error.code() in _LOST and not told:
        return WorkerLost()
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not told:
        return PayloadTooLarge("The answer is larger than a worker gives in one message: ask for less at once.")
    return refusal(from_rpc_error(error))
