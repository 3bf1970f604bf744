"""Calls with one reply, where nothing is generated: texts to vectors, documents to scores, texts to tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from atelier.errors import AtelierError, WorkerLost
from atelier.metrics import GatewayMetrics
from atelier.names import InstanceName, ModelName
from gateway.core.admission import Admission, AdmissionSlot, RunningWork
from gateway.core.call import (
    Account,
    Call,
    EmbedCall,
    Embeddings,
    Origin,
    RerankCall,
    Scores,
    Tokenization,
    TokenizeCall,
    Words,
)
from gateway.core.call_plan import CallPlan, find_target, make_plan, reported_name
from gateway.core.image_reader import ImageReader
from gateway.core.routing import ChosenInstance, Demand, Dispatcher
from gateway.core.wire import (
    chat_tokens_message,
    detokenize_message,
    embed_message,
    read_embeddings,
    read_scores,
    read_tokens,
    rerank_message,
    template_message,
    tokenize_message,
)
from gateway.core.worker_connection import Reply, Request, WorkerRefused, Workers, as_reported
from gateway.fleet.snapshot import LOADED, Instance
from gateway.fleet.watcher import Watcher
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from gateway.core.worker_connection import Method

CALL_SECONDS = 600.0  # for a worker's reply
SEQUENCES_SECONDS = 5.0  # a worker replies between two steps, unless it is stuck


class Unary:
    """Finds an instance and calls it, and once more elsewhere if it was lost. Owns the calls in flight."""

    def __init__(
        self,
        watcher: Watcher,
        dispatcher: Dispatcher,
        workers: Workers,
        admission: Admission,
        metrics: GatewayMetrics,
        images: ImageReader,
    ) -> None:
        self._watcher = watcher
        self._dispatcher = dispatcher
        self._workers = workers
        self._admission = admission
        self._metrics = metrics
        self._images = images
        self._running = RunningWork()

    async def embed(self, call: EmbedCall, origin: Origin, account: Account) -> Embeddings:
        """Raises every error as the client should see it; so do the others."""
        message = embed_message(call, origin)
        name, reply = await self._answer(lambda stub: stub.Embed, message, call.model, origin, account)
        return read_embeddings(reply, name)

    async def rerank(self, call: RerankCall, origin: Origin, account: Account) -> Scores:
        message = rerank_message(call, origin)
        name, reply = await self._answer(lambda stub: stub.Rerank, message, call.model, origin, account)
        return read_scores(reply, name)

    async def count_tokens(self, call: Call, origin: Origin, account: Account) -> int:
        """Of the prompt that the chat becomes."""
        _, reply = await self._answer_on_chat(lambda stub: stub.Tokenize, chat_tokens_message, call, origin, account)
        return len(reply.ids)

    async def tokenize(self, call: TokenizeCall, origin: Origin, account: Account) -> Tokenization:
        message = tokenize_message(call, origin)
        name, reply = await self._answer(lambda stub: stub.Tokenize, message, call.model, origin, account)
        return read_tokens(reply, name)

    async def detokenize(self, model: str, ids: Sequence[int], origin: Origin, account: Account) -> Words:
        message = detokenize_message(ids, origin)
        name, reply = await self._answer(lambda stub: stub.Detokenize, message, model, origin, account)
        return Words(name, reply.text)

    async def apply_template(self, call: Call, origin: Origin, account: Account) -> Words:
        """The prompt that the chat becomes."""
        name, reply = await self._answer_on_chat(
            lambda stub: stub.ApplyTemplate, template_message, call, origin, account
        )
        return Words(name, reply.prompt)

    async def sequences(self, instance: Instance) -> Sequence[pb.Sequence]:
        """What the instance is computing, and what is queued for it. Raises AtelierError if its worker fails."""
        if instance.state not in LOADED:
            return []
        try:
            connection = self._workers.connect(instance)
            reply = await connection.ask(lambda stub: stub.ListSequences, pb.ListSequencesRequest(), SEQUENCES_SECONDS)
        except (WorkerLost, WorkerRefused) as error:
            raise as_reported(error) from None
        return reply.sequences

    def end_all(self, error: AtelierError) -> None:
        """Every call in flight fails with this error."""
        self._running.fail_all(error)

    async def _answer_on_chat(
        self,
        method: "Method[Request, Reply]",
        message: Callable[[CallPlan, Instance], Request],
        call: Call,
        origin: Origin,
        account: Account,
    ) -> tuple[str, Reply]:
        plan = make_plan(call, origin, self._watcher.known())
        with self._admitted(plan.target, plan.model.key, origin, account) as (slot, chosen):
            async with self._running.tracked():
                ready = replace(plan, images=await self._images.read(call.images))
                reply = await self._ask(method, lambda instance: message(ready, instance), slot, chosen)
        return plan.name, reply

    async def _answer(
        self, method: "Method[Request, Reply]", message: Request, model: str, origin: Origin, account: Account
    ) -> tuple[str, Reply]:
        target, found = find_target(model, self._watcher.known())
        with self._admitted(target, found.key, origin, account) as (slot, chosen):
            async with self._running.tracked():
                reply = await self._ask(method, lambda instance: message, slot, chosen)
            account.prompt_tokens = getattr(reply, "prompt_tokens", 0)  # those that the model computed
        return reported_name(target), reply

    @contextmanager
    def _admitted(
        self, target: ModelName | InstanceName, model: str, origin: Origin, account: Account
    ) -> Iterator[tuple[AdmissionSlot, ChosenInstance]]:
        """Inside, the call is one of the requests in work."""
        account.model = model
        slot = self._admission.enter()
        chosen = ChosenInstance(self._dispatcher, Demand(target, origin.request_id))
        try:
            yield slot, chosen
        finally:
            slot.leave()
            self._metrics.count_reading(model=model, prompt_tokens=account.prompt_tokens, begun_again=chosen.replaced)

    async def _ask(
        self,
        method: "Method[Request, Reply]",
        message: Callable[[Instance], Request],
        slot: AdmissionSlot,
        chosen: ChosenInstance,
    ) -> Reply:
        async def ask(instance: Instance) -> Reply:
            slot.begin()
            return await self._workers.connect(instance).ask(method, message(instance), CALL_SECONDS)

        return await chosen.run(ask)
