"""One admitted request on its way through the workers."""

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from atelier.errors import AtelierError, WorkerLost
from gateway.core.call import Plan, submit_message
from gateway.core.completion_draft import Draft
from gateway.core.deadline import Deadline
from gateway.core.dispatcher import Dispatcher
from gateway.core.effective_settings import Effective
from gateway.core.events import Completion, Dropped, Event, Finished, PromptProgress, completion_events
from gateway.core.image_reader import ImageReader
from gateway.core.inbox import Inbox
from gateway.core.worker_connection import Submission, WorkerConnection, WorkerRefused, as_told
from gateway.core.workers import Workers
from gateway.fleet.snapshot import Instance, Launch

_log = structlog.get_logger(__name__)


class Generation:
    """Owned by the request's task, which closes it. `begin` first, then either `next_batch` or `collect`.

    new --find--> placed --begin--> accepted --next_batch, collect--> every choice ended --close--> closed
                    ^                  |
                    '----------------- worker lost, and nothing was sent to the client yet: once
    """

    def __init__(
        self,
        plan: Plan,
        deadline: Deadline,
        dispatcher: Dispatcher,
        workers: Workers,
        on_begin: Callable[[], None],
        on_close: Callable[["Generation"], None],
    ) -> None:
        self.plan = plan
        self.ends: dict[int, Finished] = {}
        self.first_text: float | None = None  # when the first text came, on the monotonic clock
        self.begun_again = False
        self.accept_seconds = 0.0  # until a worker had accepted it
        self._created = time.monotonic()
        self.had_to_load = False  # its model, or to wait for that; known when it is placed
        self.settings: Effective | None = None  # known when it has begun
        self._dispatcher = dispatcher
        self._workers = workers
        self._on_begin = on_begin
        self._on_close = on_close
        self._deadline = deadline
        self._alarm = deadline.watch(self.fail)
        self._inbox = Inbox(0)
        self._instance: Instance | None = None
        self._connection: WorkerConnection | None = None
        self._submissions: list[Submission] = []
        self._lost: set[Launch] = set()
        self._may_begin_again = True
        self._failure: AtelierError | None = None
        self._closed = False

    @property
    def instance(self) -> Instance:
        assert self._instance is not None, "begin first"
        return self._instance

    @property
    def load_seconds(self) -> float | None:
        """That its model took to load; None where it was there already."""
        return self._instance.load_seconds if self._instance and self.had_to_load else None

    @property
    def prompt_tokens(self) -> int:
        return self._inbox.prompt_tokens

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Keywords of the schema that the answer may violate; known when it has begun."""
        return self._inbox.unenforced

    @property
    def dropped(self) -> Dropped:
        """From the prompts, to make them fit; known when it has begun."""
        return self._inbox.dropped

    @property
    def cached_tokens(self) -> int:
        """Of all prompts; each is counted once, however many choices it has."""
        firsts = (self.ends.get(number) for number in range(0, self.plan.choices, self.plan.call.choices))
        return sum(end.statistics.cached_tokens for end in firsts if end)

    @property
    def generated_tokens(self) -> int:
        """Whether or not their choices have ended."""
        return max(self._inbox.tokens, self.completion_tokens)

    @property
    def completion_tokens(self) -> int:
        """Of the choices that have ended."""
        return sum(end.statistics.predicted_tokens for end in self.ends.values())

    @property
    def reasoning_tokens(self) -> int:
        """Of the choices that have ended."""
        return sum(end.statistics.reasoning_tokens for end in self.ends.values())

    @property
    def draft_tokens(self) -> int:
        """Of the choices that have ended, guessed ahead by speculation."""
        return sum(end.statistics.draft_tokens for end in self.ends.values())

    @property
    def accepted_draft_tokens(self) -> int:
        return sum(end.statistics.accepted_draft_tokens for end in self.ends.values())

    def must_load(self) -> bool:
        """Whether `find` will take a load; raises what is known to stand against it."""
        return not self._dispatcher.has_ready(self.plan.target, self.plan.call.draft_model)

    async def read_images(self, reader: ImageReader) -> None:
        """Before all else, where the call has images; raises what is wrong with them."""
        async with self._deadline.enforced():
            self.plan = replace(self.plan, images=await reader.read(self.plan.call.images))

    async def find(self) -> None:
        """Return when an instance is ready. Part of `begin`, for whoever tells of the load meanwhile."""
        plan = self.plan
        self.had_to_load = self.had_to_load or self.must_load()
        async with self._deadline.enforced():
            self._instance = await self._dispatcher.find(
                plan.target, plan.origin.request_id, self._lost, plan.call.draft_model, plan.call.ttl, plan.call.load
            )

    async def begin(self) -> None:
        """Return when a worker has accepted every prompt; raises why none does."""
        if self._instance is None:
            await self.find()
        try:
            await self._submit()
        except (WorkerLost, WorkerRefused) as error:
            await self._begin_again(error)
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
                raise as_told(error) from None
            await self._begin_again(error)
            return await self.next_batch()
        self._note(batch)
        return batch

    async def collect(self) -> list[Completion]:
        """Every choice whole, in order. Nothing was sent meanwhile: a lost worker is replaced even late."""
        try:
            return await self._collect_once()
        except (WorkerLost, WorkerRefused) as error:
            await self._begin_again(error)
        try:
            return await self._collect_once()
        except WorkerRefused as error:
            raise error.error from None

    async def events(self) -> list[Event]:
        """All of an answer of one choice, as `collect` has it."""
        (completion,) = await self.collect()
        return [*completion_events(completion), completion.finished]

    def fail(self, error: AtelierError) -> None:
        """End it with an error, wherever it is."""
        self._may_begin_again = False
        self._failure = error
        self._inbox.fail(error)

    def close(self) -> None:
        """Stop what still runs and settle; a second time does nothing."""
        if not self._closed:
            self._closed = True
            if self._alarm is not None:
                self._alarm.cancel()
            self._withdraw()
            self._on_close(self)

    async def _submit(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._connection = self._workers.connect(self.instance)
        self._inbox = Inbox(len(self.plan.call.prompts))
        self.settings = self.plan.effective(self.instance)
        for number, prompt in enumerate(self.plan.call.prompts):
            first_choice = number * self.plan.call.choices
            message = submit_message(self.plan, prompt, self.settings)
            self._deadline.tell(message)
            self._submissions.append(self._connection.submit(message, self._inbox, first_choice))
        await self._inbox.wait_accepted()

    async def _begin_again(self, error: WorkerLost | WorkerRefused) -> None:
        """Once, on another worker or on the one that takes the lost one's place."""
        if not self._may_begin_again:
            raise as_told(error) from None
        self._may_begin_again, self.begun_again = False, True
        _log.info("request_begins_again", request_id=self.plan.origin.request_id, instance=self.instance.id)
        self._withdraw()
        self._lost.add(self.instance.launch)
        self.ends.clear()
        await self.find()
        try:
            await self._submit()
        except WorkerRefused as again:
            raise again.error from None

    def _withdraw(self) -> None:
        for submission in self._submissions:
            assert self._connection is not None
            self._connection.cancel(submission)
        self._submissions = []

    async def _collect_once(self) -> list[Completion]:
        drafts = [Draft() for _ in range(self.plan.choices)]
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
