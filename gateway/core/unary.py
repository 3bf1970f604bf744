"""Calls with one answer, where nothing is generated: texts to vectors, documents to scores, texts to tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from atelier.errors import AtelierError, WorkerLost
from atelier.metrics import GatewayMetrics
from atelier.names import InstanceName, ModelName
from gateway.core.account import Account
from gateway.core.admission import Admission
from gateway.core.call import Call, Chat, Origin, Plan, find_target, make_plan, set_chat, told_name
from gateway.core.dispatcher import Dispatcher
from gateway.core.ending import Ending
from gateway.core.image_reader import ImageReader
from gateway.core.worker_connection import Method, WorkerRefused, as_told
from gateway.core.workers import Workers
from gateway.fleet.snapshot import Instance, Launch
from gateway.fleet.watcher import Watcher
from protos import inference_pb2 as pb

CALL_SECONDS = 600.0  # that a worker may take for one call


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """Texts or token ids, of which each becomes a vector."""

    model: str  # as the client wrote it
    texts: Sequence[str] = ()
    tokens: Sequence[Sequence[int]] = ()
    dimensions: int | None = None  # of each vector; all that the model makes when unset


@dataclass(frozen=True, slots=True)
class Embeddings:
    model: str
    vectors: list[Sequence[float]]  # of unit length, in the inputs' order
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall:
    """Documents to hold against a query."""

    model: str
    query: str
    documents: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scores:
    model: str
    values: Sequence[float]  # in the documents' order; higher is better
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeCall:
    """Text that becomes tokens."""

    model: str
    text: str
    add_special: bool = True  # begin-of-sequence and the like
    parse_special: bool = True  # tokens that the text writes out are meant


@dataclass(frozen=True, slots=True)
class TokenList:
    model: str
    ids: Sequence[int]
    pieces: Sequence[bytes]  # what each is written as, which may be part of a code point


@dataclass(frozen=True, slots=True)
class Words:
    """Text that a worker made of tokens or of a chat."""

    model: str
    text: str


class Unary:
    """Finds the instance, asks it once, and once more elsewhere where it was lost. Owns the calls on their way."""

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
        self._ending = Ending()

    async def embed(self, call: EmbedCall, origin: Origin, account: Account) -> Embeddings:
        """Raises what stands against it, as the client should see it; so do the others."""
        name, reply = await self._answer("Embed", embed_message(call, origin), call.model, origin, account)
        return Embeddings(name, [each.values for each in reply.embeddings], reply.prompt_tokens)

    async def rerank(self, call: RerankCall, origin: Origin, account: Account) -> Scores:
        name, reply = await self._answer("Rerank", rerank_message(call, origin), call.model, origin, account)
        return Scores(name, reply.scores, reply.prompt_tokens)

    async def count_tokens(self, call: Call, origin: Origin, account: Account) -> int:
        """Of the prompt that the chat becomes."""
        _, reply = await self._answer_on_chat("Tokenize", chat_tokens_message, call, origin, account)
        return len(reply.ids)

    async def tokenize(self, call: TokenizeCall, origin: Origin, account: Account) -> TokenList:
        name, reply = await self._answer("Tokenize", tokenize_message(call, origin), call.model, origin, account)
        return TokenList(name, reply.ids, reply.pieces)

    async def detokenize(self, model: str, ids: Sequence[int], origin: Origin, account: Account) -> Words:
        message = pb.DetokenizeRequest(request_id=origin.request_id, tokens=pb.Tokens(ids=ids))
        name, reply = await self._answer("Detokenize", message, model, origin, account)
        return Words(name, reply.text)

    async def apply_template(self, call: Call, origin: Origin, account: Account) -> Words:
        """The prompt that the chat becomes."""
        name, reply = await self._answer_on_chat("ApplyTemplate", template_message, call, origin, account)
        return Words(name, reply.prompt)

    def end_all(self, error: AtelierError) -> None:
        """Every call that is on its way ends with this error."""
        self._ending.end_all(error)

    async def _answer_on_chat(
        self, method: Method, message: Callable[[Plan, Instance], Any], call: Call, origin: Origin, account: Account
    ) -> tuple[str, Any]:
        plan = make_plan(call, origin, self._watcher.known())
        with self._admitted(plan.model.key, account) as (on_found, lost):
            async with self._ending.until_ended():
                seen = replace(plan, images=await self._images.read(call.images))
                reply = await self._ask(
                    method, lambda instance: message(seen, instance), plan.target, origin, lost, on_found
                )
        return told_name(plan.target), reply

    async def _answer(
        self, method: Method, message: Any, model: str, origin: Origin, account: Account
    ) -> tuple[str, Any]:
        target, found = find_target(model, self._watcher.known())
        with self._admitted(found.key, account) as (on_found, lost):
            async with self._ending.until_ended():
                reply = await self._ask(method, lambda _: message, target, origin, lost, on_found)
            account.prompt_tokens = getattr(reply, "prompt_tokens", 0)  # those that the model has read
        return told_name(target), reply

    @contextmanager
    def _admitted(self, model: str, account: Account) -> Iterator[tuple[Callable[[], None], set[Launch]]]:
        """A place among the requests in work: what to call when the model is there, and which workers were lost."""
        account.model = model
        ticket = self._admission.enter()
        lost: set[Launch] = set()
        try:
            yield ticket.begin, lost
        finally:
            ticket.leave()
            self._metrics.count_reading(model=model, prompt_tokens=account.prompt_tokens, begun_again=bool(lost))

    async def _ask(
        self,
        method: Method,
        message: Callable[[Instance], Any],
        target: ModelName | InstanceName,
        origin: Origin,
        lost: set[Launch],
        on_found: Callable[[], None],
    ) -> Any:
        while True:
            instance = await self._dispatcher.find(target, origin.request_id, lost)
            on_found()
            try:
                return await self._workers.connect(instance).ask(method, message(instance), CALL_SECONDS)
            except (WorkerLost, WorkerRefused) as error:
                if lost:
                    raise as_told(error) from None
                lost.add(instance.launch)


def embed_message(call: EmbedCall, origin: Origin) -> pb.EmbedRequest:
    inputs = [pb.Tokens(ids=ids) for ids in call.tokens]
    return pb.EmbedRequest(request_id=origin.request_id, texts=call.texts, inputs=inputs, dimensions=call.dimensions)


def rerank_message(call: RerankCall, origin: Origin) -> pb.RerankRequest:
    return pb.RerankRequest(request_id=origin.request_id, query=call.query, documents=call.documents)


def tokenize_message(call: TokenizeCall, origin: Origin) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(
        request_id=origin.request_id,
        text=call.text,
        add_special=call.add_special,
        parse_special=call.parse_special,
    )


def chat_tokens_message(plan: Plan, instance: Instance | None) -> pb.TokenizeRequest:
    message = pb.TokenizeRequest(request_id=plan.origin.request_id)
    set_one_chat(message.chat, plan, instance)
    return message


def template_message(plan: Plan, instance: Instance | None) -> pb.ApplyTemplateRequest:
    message = pb.ApplyTemplateRequest(request_id=plan.origin.request_id)
    set_one_chat(message.chat, plan, instance)
    return message


def set_one_chat(chat: pb.Chat, plan: Plan, instance: Instance | None) -> None:
    """The plan's one chat, as this instance would be asked to answer it."""
    (prompt,) = plan.call.prompts
    assert isinstance(prompt, Chat)
    set_chat(chat, plan, prompt.messages, plan.effective(instance).prompt.build())
