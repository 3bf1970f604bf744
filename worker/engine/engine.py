"""The llama.cpp engine for the servicer: the event loop's side of the engine's thread."""

import asyncio
import secrets
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from atelier.errors import AtelierError, Draining, InvalidRequest
from atelier.generation_types import Finished
from atelier.launch import LaunchSpec
from worker.engine.batching.sequence import Sequence, Ticket
from worker.engine.embedding import check_dimensions, check_lengths, unit_vectors
from worker.engine.engine_thread import EngineThread
from worker.engine.interface import (
    Accepted,
    ChatPrompt,
    Description,
    Emitted,
    Failed,
    Figures,
    Publish,
    Request,
    SequenceFigures,
    Source,
)
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.prompt.prompt_tokenizer import PromptTokenizer

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class LlamaEngine:
    """Prepares each call beside the decode loop, then hands it over. Their shared ticket carries cancellation."""

    def __init__(self, spec: LaunchSpec, publish: Publish) -> None:
        self._spec = spec
        self._publish = publish
        self._thread = EngineThread(spec, self._publish_step)
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._tickets: dict[Source, Ticket] = {}
        self._alarms: dict[Source, asyncio.TimerHandle] = {}  # at the deadlines of calls
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, on_progress: Callable[[float], None]) -> Description:
        description = await self._thread.load(on_progress)
        self._vocabulary = self._thread.vocabulary
        self._description = description
        self._preparer = self._thread.preparer
        return description

    def submit(self, source: Source, request: Request) -> None:
        if not self._description.can_generate:
            error = InvalidRequest("This model makes embeddings and cannot complete prompts.", param="model")
            self._publish([(source, Failed(error))])
            return
        ticket = self._tickets[source] = Ticket(source, request.choices, request.deadlines)
        if request.deadlines.end is not None:
            loop = asyncio.get_running_loop()
            self._alarms[source] = loop.call_later(request.deadlines.end, self._thread.review_call)
        task = asyncio.create_task(self._start(ticket, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, ticket: Ticket, request: Request) -> None:
        loop = asyncio.get_running_loop()
        try:
            with self._thread.expecting():
                prepared = await loop.run_in_executor(self._preparing, self._prepare, ticket, request)
                if prepared is not None and prepared.image_chunks:
                    prepared = await loop.run_in_executor(self._encoding, self._encode, ticket, prepared)
            sequences = self._sequences(ticket, prepared) if prepared is not None else []
        except AtelierError as error:
            self._publish_step([(ticket.source, Failed(error))])
        except Exception:
            _log.exception("prepare_failed", request=request.request_id)
            self._publish_step([(ticket.source, Failed(AtelierError()))])
        else:
            if prepared is not None:
                self._begin(ticket, prepared, sequences)

    def _prepare(self, ticket: Ticket, request: Request) -> Prepared | None:
        """On the preparing thread: the request, ready to run; None if its call was cancelled before."""
        if ticket.cancelled:
            return None
        if (error := ticket.missed(time.monotonic())) is not None:
            raise error
        return self._preparer.prepare(request)

    def _encode(self, ticket: Ticket, prepared: Prepared) -> Prepared | None:
        """On a thread of its own, as it takes much longer than other preparations: the request, its images encoded."""
        return None if ticket.cancelled else self._preparer.encode(prepared)

    def _sequences(self, ticket: Ticket, prepared: Prepared) -> list[Sequence]:
        request = prepared.request
        seed = self._seed(request)
        return [Sequence(ticket, number, prepared, seed, self._vocabulary) for number in range(request.choices)]

    def _begin(self, ticket: Ticket, prepared: Prepared, sequences: list[Sequence]) -> None:
        if not ticket.cancelled:
            unenforced = prepared.matcher.unenforced if prepared.matcher else ()
            self._publish([(ticket.source, Accepted(len(prepared.tokens), unenforced, prepared.dropped))])
        self._thread.add(sequences)  # even if the call is cancelled: the batcher closes them

    def _seed(self, request: Request) -> int:
        """The request's, or else the instance's, or else a random one."""
        for seed in (request.sampling.seed, self._spec.load.load_seed):
            if seed is not None:
                return seed
        return secrets.randbits(31)

    def cancel(self, source: Source) -> None:
        if ticket := self._forget(source):
            ticket.cancelled = True
            self._thread.review_call()

    def figures(self) -> Figures:
        active = self._thread.active
        unfinished = sum(ticket.open_choices for ticket in self._tickets.values())
        return Figures(
            active, max(0, unfinished - active), self._thread.steps, self._thread.cache_used, self._thread.cache_limit
        )

    async def sequences(self) -> list[SequenceFigures]:
        return await self._thread.sequences()

    async def release_cache(self, size: int) -> int:
        return await self._thread.release_cache(size)

    async def tokenize(
        self, prompt: ChatPrompt | str, add_special: bool, parse_special: bool = True
    ) -> list[tuple[int, bytes]]:
        return await self._tokenizing(
            lambda tokenizer: tokenizer.read_tokens(prompt, add_special=add_special, parse_special=parse_special)
        )

    async def detokenize(self, tokens: list[int]) -> str:
        return await self._tokenizing(lambda tokenizer: tokenizer.detokenize(tokens))

    async def render(self, chat: ChatPrompt) -> str:
        return await self._tokenizing(lambda tokenizer: tokenizer.render(tokenizer.settle(chat)))

    async def embed(
        self, inputs: list[str | list[int]], dimensions: int | None = None
    ) -> tuple[list[list[float]], int]:
        if not self._description.can_embed:
            raise InvalidRequest("This model ranks texts and makes no embeddings.", param="model")
        check_dimensions(dimensions, self._description.embedding_length)
        if not inputs:
            return [], 0
        tokens = [await self._input_tokens(number, text) for number, text in enumerate(inputs)]
        check_lengths(tokens, self._thread.longest_input, "input")
        return unit_vectors(await self._thread.pool(tokens), dimensions), sum(map(len, tokens))

    async def _input_tokens(self, number: int, text: str | list[int]) -> list[int]:
        try:
            return await self._tokenizing(
                lambda tokenizer: tokenizer.tokenize(text, add_special=True, parse_special=False)
            )
        except InvalidRequest as error:
            raise type(error)(f"Input {number}: {error.message}", param="input") from None

    async def rerank(self, query: str, documents: list[str]) -> tuple[list[float], int]:
        if not self._description.can_rerank:
            raise InvalidRequest("This model ranks no documents: use one that was made for reranking.", param="model")
        if not documents:
            return [], 0
        pairs = await self._pairs(query, documents)
        check_lengths(pairs, self._thread.longest_input, "document")
        scores = await self._thread.pool(pairs)
        return scores[:, 0].tolist(), sum(map(len, pairs))

    async def _pairs(self, query: str, documents: list[str]) -> list[list[int]]:
        loop, reader = asyncio.get_running_loop(), self._thread.pair_reader
        return [await loop.run_in_executor(self._preparing, reader.tokens, query, each) for each in documents]

    async def _tokenizing(self, job: Callable[[PromptTokenizer], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._preparing, job, self._preparer.tokenizer)

    async def close(self) -> None:
        self._preparing.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._encoding.shutdown, cancel_futures=True)  # the projector is freed next
        await self._thread.close()
        left = dict(self._tickets)
        for source, ticket in left.items():
            ticket.cancelled = True
            self._forget(source)
        self._publish([(source, Failed(Draining("The model was unloaded."))) for source in left])

    def _publish_step(self, step: Seq[Emitted]) -> None:
        for source, event in step:
            if isinstance(event, (Finished, Failed)):
                self._count_end(source, failed=isinstance(event, Failed))
        self._publish(step)

    def _count_end(self, source: Source, *, failed: bool) -> None:
        if (ticket := self._tickets.get(source)) is None:
            return
        ticket.open_choices -= 1
        if failed or ticket.open_choices == 0:
            self._forget(source)

    def _forget(self, source: Source) -> Ticket | None:
        if alarm := self._alarms.pop(source, None):
            alarm.cancel()
        return self._tickets.pop(source, None)
