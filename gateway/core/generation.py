"""One admitted request's generation on a worker: begun, streamed or collected, closed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from atelier.errors import AtelierError, DeadlineExceeded, WorkerLost
from atelier.generation_types import Dropped, Finished
from gateway.core.call_plan import CallPlan, Effective
from gateway.core.events import Completion, CompletionDraft, Event, PromptProgress, completion_events
from gateway.core.image_reader import ImageReader
from gateway.core.inbox import Inbox
from gateway.core.routing import ChosenInstance, Demand, Dispatcher
from gateway.core.wire import submit_message
from gateway.core.worker_connection import Submission, WorkerConnection, WorkerRefused, Workers, as_reported
from gateway.fleet.snapshot import Instance

MARGIN_SECONDS = 1.0  # a working worker reports by itself that the time is up

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long one request may take. `end` is on the monotonic clock; None: without a limit."""

    end: float | None = None
    queue_seconds: float | None = None  # for which a worker may let it wait for a sequence

    @property
    def seconds_left(self) -> float | None:
        return None if self.end is None else max(0.0, self.end - time.monotonic())

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Work inside that takes longer ends with DeadlineExceeded."""
        try:
            async with asyncio.timeout(self.seconds_left) as bounds:
                yield
        except TimeoutError:
            if bounds.expired():
                raise overdue() from None
            raise

    def watch(self, fail: Callable[[DeadlineExceeded], None]) -> asyncio.TimerHandle | None:
        """Call `fail` if no worker has ended the request in time; the caller cancels it with the request."""
        if self.end is None:
            return None
        left = max(0.0, self.end + MARGIN_SECONDS - time.monotonic())
        return asyncio.get_running_loop().call_later(left, lambda: fail(overdue()))


def overdue() -> DeadlineExceeded:
    return DeadlineExceeded("The request's timeout passed.", param="timeout")


class Generation:
    """Owned by the request's task, which closes it. `begin` first, then either `next_batch` or `collect`.

    new --find--> placed --begin--> accepted --next_batch, collect--> every choice ended --close--> closed
                    ^                  |
                    '----------------- worker lost, and nothing was sent to the client yet: once
    """

    def __init__(
        self,
        plan: CallPlan,
        deadline: Deadline,
        dispatcher: Dispatcher,
        workers: Workers,
        on_begin: Callable[[], None],
        on_close: Callable[["Generation"], None],
    ) -> None:
        self.plan = plan
        self.settings: Effective | None = None  # known once it has begun
        self.accept_seconds = 0.0  # until a worker accepted it
        self.ends: dict[int, Finished] = {}
        self.first_text: float | None = None  # when the first text arrived, on the monotonic clock
        self._created = time.monotonic()
        self._workers = workers
        self._on_begin = on_begin
        self._on_close = on_close
        self._deadline = deadline
        self._alarm = deadline.watch(self.fail)
        call, origin = plan.call, plan.origin
        demand = Demand(plan.target, origin.request_id, call.draft_model, call.ttl, call.load)
        self._chosen = ChosenInstance(dispatcher, demand, within=deadline.enforced, on_lost=self._start_over)
        self._inbox = Inbox(0)
        self._connection: WorkerConnection | None = None
        self._submissions: list[Submission] = []
        self._failure: AtelierError | None = None
        self._closed = False

    @property
    def instance(self) -> Instance:
        assert self._chosen.instance is not None, "begin first"
        return self._chosen.instance

    @property
    def load_seconds(self) -> float | None:
        """How long its model took to load; None where it was loaded already."""
        chosen = self._chosen
        return chosen.instance.load_seconds if chosen.instance and chosen.had_to_load else None

    @property
    def begun_again(self) -> bool:
        return self._chosen.replaced

    @property
    def prompt_tokens(self) -> int:
        return self._inbox.prompt_tokens

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Keywords of the schema that the answer may violate; known once it has begun."""
        return self._inbox.unenforced

    @property
    def dropped(self) -> Dropped:
        """What was left out of the prompts to make them fit; known once it has begun."""
        return self._inbox.dropped

    @property
    def cached_tokens(self) -> int:
        """Of all prompts, each counted once, however many choices it has."""
        firsts = (self.ends.get(number) for number in range(0, self.plan.choices, self.plan.call.choices))
        return sum(end.statistics.cached_tokens for end in firsts if end)

    @property
    def generated_tokens(self) -> int:
        """Of all choices, those that have not ended included."""
        return max(self._inbox.tokens, self.completion_tokens)

    @property
    def completion_tokens(self) -> int:
        """Of the choices that have ended, as are the counts below."""
        return sum(end.statistics.predicted_tokens for end in self.ends.values())

    @property
    def reasoning_tokens(self) -> int:
        return sum(end.statistics.reasoning_tokens for end in self.ends.values())

    @property
    def draft_tokens(self) -> int:
        """Proposed by speculation."""
        return sum(end.statistics.draft_tokens for end in self.ends.values())

    @property
    def accepted_draft_tokens(self) -> int:
        return sum(end.statistics.accepted_draft_tokens for end in self.ends.values())

    async def read_images(self, reader: ImageReader) -> None:
        """Before all else, where the call has images. Raises InvalidRequest, UnsupportedField."""
        async with self._deadline.enforced():
            self.plan = replace(self.plan, images=await reader.read(self.plan.call.images))

    def must_load(self) -> bool:
        """Whether `find` would wait for a load; raises what it would reject."""
        return self._chosen.must_load()

    async def find(self) -> None:
        """Return when an instance is ready. `begin` does it too; callers that report the load do it first."""
        await self._chosen.find()

    async def begin(self) -> None:
        """Return when a worker has accepted every prompt; raises why none does."""
        await self._chosen.run(self._submit)
        self.accept_seconds = time.monotonic() - self._created
        self._on_begin()

    async def next_batch(self) -> list[Event]:
        """Everything since the last batch; an empty one when every choice has ended."""
        if len(self.ends) == self.plan.choices:
            return []
        try:
            batch = await self._inbox.take()
        except (WorkerLost, WorkerRefused) as error:
            if self.first_text is not None:  # it was sent
                raise as_reported(error) from None
            self._chosen.give_up(error)
            await self._chosen.run(self._submit)
            return await self.next_batch()
        self._note(batch)
        return batch

    async def collect(self) -> list[Completion]:
        """Every choice whole, in order. Nothing is sent meanwhile: even late, a lost worker is replaced."""
        return await self._chosen.run(self._collect_once)

    async def events(self) -> list[Event]:
        """All events of an answer of one choice, collected as `collect` does."""
        (completion,) = await self.collect()
        return [*completion_events(completion), completion.finished]

    def fail(self, error: AtelierError) -> None:
        """End it with an error, whatever it waits for."""
        self._chosen.final = True
        self._failure = error
        self._inbox.fail(error)

    def close(self) -> None:
        """Stop what still runs, and settle; a second time does nothing."""
        if not self._closed:
            self._closed = True
            if self._alarm is not None:
                self._alarm.cancel()
            self._withdraw()
            self._on_close(self)

    async def _submit(self, instance: Instance) -> None:
        if self._failure is not None:
            raise self._failure
        self._connection = self._workers.connect(instance)
        self._inbox = Inbox(len(self.plan.call.prompts))
        self.settings = self.plan.effective(instance)
        left, queue = self._deadline.seconds_left, self._deadline.queue_seconds
        for number, prompt in enumerate(self.plan.call.prompts):
            message = submit_message(self.plan, prompt, self.settings, left, queue)
            first_choice = number * self.plan.call.choices
            self._submissions.append(self._connection.submit(message, self._inbox, first_choice))
        await self._inbox.wait_accepted()

    def _start_over(self, lost: Instance) -> None:
        _log.info("request_begins_again", request_id=self.plan.origin.request_id, instance=lost.id)
        self._withdraw()
        self.ends.clear()

    def _withdraw(self) -> None:
        for submission in self._submissions:
            assert self._connection is not None
            self._connection.cancel(submission)
        self._submissions = []

    async def _collect_once(self, instance: Instance) -> list[Completion]:
        if not self._submissions:  # the instance has taken a lost one's place
            await self._submit(instance)
        drafts = [CompletionDraft() for _ in range(self.plan.choices)]
        while len(self.ends) < self.plan.choices:
            batch = await self._inbox.take()
            self._note(batch)
            for event in batch:
                drafts[event.choice].add(event)
        wanted = self.plan.call.logprobs is not None
        return [draft.completion(self.ends[choice], logprobs=wanted) for choice, draft in enumerate(drafts)]

    def _note(self, batch: list[Event]) -> None:
        if self.first_text is None and not isinstance(batch[-1], PromptProgress):  # it comes first in a batch
            self.first_text = time.monotonic()
        for event in batch:
            if isinstance(event, Finished):
                self.ends[event.choice] = event
