"""The worker's gRPC service: checks that a request is meant for this instance, converts it, and calls the engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from atelier.errors import AtelierError, Draining, InstanceNotFound, InvalidRequest, Unavailable
from atelier.launch import LaunchSpec
from atelier.rpc import Context, reported_errors
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import InferenceServicer as GeneratedServicer
from worker.engine.interface import Description, Engine, Failed, Source
from worker.generate_streams import GenerateStream, GenerateStreams
from worker.wire import description_message, event_message, read_chat, read_submit, sequence_message
from worker.worker_status import Activity, Status

_log = structlog.get_logger(__name__)


class InferenceServicer(GeneratedServicer):
    """Converts and delegates: the engine and the status decide."""

    def __init__(
        self,
        spec: LaunchSpec,
        engine: Engine,
        status: Status,
        streams: GenerateStreams,
        activity: Activity,
        on_shutdown: Callable[[float], None],
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._status = status
        self._streams = streams
        self._activity = activity
        self._on_shutdown = on_shutdown
        self.description: Description | None = None  # set when the engine is loaded

    async def Generate(self, request_iterator: AsyncIterator[pb.Command], context: Context) -> AsyncIterator[pb.Step]:
        stream = self._streams.open()
        reader = asyncio.create_task(self._read_commands(stream, request_iterator))
        try:
            async for step in stream.steps():
                yield step
        finally:
            reader.cancel()
            for call in stream.open_calls():
                self._cancel(stream, call)
            self._streams.close(stream)

    async def _read_commands(self, stream: GenerateStream, commands: AsyncIterator[pb.Command]) -> None:
        try:
            async for command in commands:
                if command.WhichOneof("command") == "submit":
                    self._submit(stream, command.submit)
                else:
                    self._cancel(stream, command.cancel.call)
        finally:
            stream.end()

    def _submit(self, stream: GenerateStream, submit: pb.Submit) -> None:
        try:
            self._check(submit.instance_id)
            self._check_accepting()
            if stream.is_open(submit.call):
                raise InvalidRequest(f"Call {submit.call} is already open on this stream. Choose another number.")
            request = read_submit(submit)
            self._engine.submit(stream.begin(submit.call, request.choices), request)
        except AtelierError as error:
            stream.push(submit.call, event_message(submit.call, Failed(error)))
        except Exception:  # one call's fault must not end the stream of all the others
            _log.exception("submit_failed", request=submit.request_id)
            stream.push(submit.call, event_message(submit.call, Failed(AtelierError())))

    def _cancel(self, stream: GenerateStream, call: int) -> None:
        if stream.is_open(call):
            stream.forget(call)
            self._engine.cancel(Source(stream.number, call))

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedReply:
        async with self._call(request.instance_id, context):
            inputs: list[str | list[int]] = [*request.texts, *(list(tokens.ids) for tokens in request.inputs)]
            dimensions = request.dimensions if request.HasField("dimensions") else None
            vectors, prompt_tokens = await self._engine.embed(inputs, dimensions)
        return pb.EmbedReply(embeddings=[pb.Embedding(values=v) for v in vectors], prompt_tokens=prompt_tokens)

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankReply:
        async with self._call(request.instance_id, context):
            scores, prompt_tokens = await self._engine.rerank(request.query, list(request.documents))
        return pb.RerankReply(scores=scores, prompt_tokens=prompt_tokens)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeReply:
        async with self._call(request.instance_id, context):
            prompt = read_chat(request.chat) if request.HasField("chat") else request.text
            add_special = request.add_special if request.HasField("add_special") else True
            parse_special = request.parse_special if request.HasField("parse_special") else True
            tokens = await self._engine.tokenize(prompt, add_special, parse_special)
        return pb.TokenizeReply(ids=[id for id, _ in tokens], pieces=[piece for _, piece in tokens])

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeReply:
        async with self._call(request.instance_id, context):
            text = await self._engine.detokenize(list(request.tokens.ids))
        return pb.DetokenizeReply(text=text)

    async def ApplyTemplate(self, request: pb.ApplyTemplateRequest, context: Context) -> pb.ApplyTemplateReply:
        async with self._call(request.instance_id, context):
            prompt = await self._engine.render(read_chat(request.chat))
        return pb.ApplyTemplateReply(prompt=prompt)

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.WorkerDescription:
        async with reported_errors(context):
            self._check(request.instance_id)
            if self.description is None:
                raise Unavailable("The model is still being loaded.")
        return description_message(self._spec.instance_id, self._spec.load, self.description)

    async def ListSequences(self, request: pb.ListSequencesRequest, context: Context) -> pb.ListSequencesReply:
        async with reported_errors(context):
            self._check(request.instance_id)
            sequences = await self._engine.sequences() if self.description is not None else []
        return pb.ListSequencesReply(sequences=map(sequence_message, sequences))

    async def ReleaseCache(self, request: pb.ReleaseCacheRequest, context: Context) -> pb.ReleaseCacheReply:
        async with reported_errors(context):
            self._check(request.instance_id)
            released = await self._engine.release_cache(request.size_bytes) if self.description is not None else 0
        return pb.ReleaseCacheReply(released_bytes=released)

    async def Supervise(self, request: pb.SuperviseRequest, context: Context) -> AsyncIterator[pb.WorkerStatus]:
        async with reported_errors(context):
            self._check(request.instance_id)
        async for status in self._status.follow():
            yield status

    async def Shutdown(self, request: pb.ShutdownRequest, context: Context) -> pb.ShutdownReply:
        async with reported_errors(context):
            self._check(request.instance_id)
            self._on_shutdown(request.grace_seconds)
        return pb.ShutdownReply()

    @contextlib.asynccontextmanager
    async def _call(self, instance_id: str, context: Context) -> AsyncIterator[None]:
        """A call of the loaded model, for as long as the block lasts."""
        async with reported_errors(context):
            self._check(instance_id)
            self._check_accepting()
            with self._activity.call():
                yield

    def _check(self, instance_id: str) -> None:
        """Addresses are reused: a request may be meant for the instance that had this one before."""
        if instance_id != self._spec.instance_id:
            raise InstanceNotFound(f'This worker serves "{self._spec.instance_id}", not "{instance_id}".')

    def _check_accepting(self) -> None:
        if self._status.state == pb.WORKER_DRAINING:
            raise Draining("The model is being unloaded.")
        if self._status.state != pb.WORKER_READY:
            raise Unavailable("The model is not loaded.")
