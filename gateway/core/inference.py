"""The one core that every dialect calls: resolve, admit, route, stream, account."""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from atelier.errors import AtelierError
from atelier.generation_types import Dropped, Finished
from atelier.metrics import GatewayMetrics
from gateway.core.admission import Admission, AdmissionSlot
from gateway.core.call import Account, Call, Origin
from gateway.core.call_plan import CallPlan, Effective, make_plan
from gateway.core.events import Event
from gateway.core.generation import Deadline, Generation
from gateway.core.image_reader import ImageReader
from gateway.core.routing import Dispatcher
from gateway.core.worker_connection import Workers
from gateway.fleet.snapshot import Instance
from gateway.fleet.watcher import Watcher


class RunningAnswer(Protocol):
    """An answer in progress: a generation, or a loop of them that calls tools. Owned by the request's task.

    See `Generation` for its members.
    """

    @property
    def plan(self) -> CallPlan: ...
    @property
    def ends(self) -> Mapping[int, Finished]: ...
    @property
    def instance(self) -> Instance: ...
    @property
    def settings(self) -> Effective | None: ...
    @property
    def accept_seconds(self) -> float: ...
    @property
    def load_seconds(self) -> float | None: ...
    @property
    def unenforced(self) -> tuple[str, ...]: ...
    @property
    def dropped(self) -> Dropped: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def generated_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...
    def must_load(self) -> bool: ...
    async def find(self) -> None: ...
    async def begin(self) -> None: ...
    async def next_batch(self) -> list[Event]: ...
    async def events(self) -> list[Event]: ...
    def fail(self, error: AtelierError) -> None: ...
    def close(self) -> None: ...


Admitted = TypeVar("Admitted", bound=RunningAnswer)


class InferenceCore:
    """Starts generations. Owns the set of the running ones."""

    def __init__(
        self,
        watcher: Watcher,
        dispatcher: Dispatcher,
        workers: Workers,
        admission: Admission,
        metrics: GatewayMetrics,
        images: ImageReader,
        *,
        queue_timeout: float | None = None,
    ) -> None:
        """`queue_timeout`: seconds for which a worker may let a request wait for a sequence."""
        self._watcher = watcher
        self._dispatcher = dispatcher
        self._workers = workers
        self._admission = admission
        self._metrics = metrics
        self._images = images
        self._queue_timeout = queue_timeout
        self._running: set[Generation] = set()

    def check(self, call: Call, origin: Origin) -> CallPlan:
        """What `start` would begin; raises what is wrong with the call, before an instance is looked for."""
        return make_plan(call, origin, self._watcher.known())

    def enter(self) -> AdmissionSlot:
        """A slot for an answer of several generations, which the caller frees. Raises Overloaded, Draining."""
        return self._admission.enter()

    async def start(
        self, call: Call, origin: Origin, account: Account, slot: AdmissionSlot | None = None
    ) -> Generation:
        """A generation that a worker has accepted; the caller closes it. Raises errors as the client should see them.

        `slot`: one that the caller holds already, and frees itself.
        """
        return await begun(await self.admit(call, origin, account, slot))

    async def admit(
        self, call: Call, origin: Origin, account: Account, slot: AdmissionSlot | None = None
    ) -> Generation:
        """A generation that has yet to begin, for callers that report the load meanwhile; the caller closes it."""
        generation = self._enter(call, origin, account, slot)
        if call.images:
            try:
                await generation.read_images(self._images)
            except BaseException:
                generation.close()
                raise
        return generation

    def end_all(self, error: AtelierError) -> None:
        """Every running generation fails with this error."""
        for generation in list(self._running):
            generation.fail(error)

    def _enter(self, call: Call, origin: Origin, account: Account, slot: AdmissionSlot | None) -> Generation:
        plan = self.check(call, origin)
        account.model = plan.model.key
        held = slot or self._admission.enter()
        generation = Generation(
            plan,
            self._deadline(call, account),
            self._dispatcher,
            self._workers,
            on_begin=held.begin,
            on_close=lambda closed: self._settle(closed, None if slot else held, account),
        )
        self._running.add(generation)
        return generation

    def _deadline(self, call: Call, account: Account) -> Deadline:
        end = account.started + call.timeout if call.timeout is not None else None
        return Deadline(end, self._queue_timeout)

    def _settle(self, generation: Generation, slot: AdmissionSlot | None, account: Account) -> None:
        self._running.discard(generation)
        if slot is not None:
            slot.leave()
        account.prompt_tokens += generation.prompt_tokens
        account.completion_tokens += generation.generated_tokens
        account.generations += 1
        first_text = generation.first_text if account.generations == 1 else None  # of the request
        self._metrics.count_generation(
            model=account.model,
            prompt_tokens=generation.prompt_tokens,
            cached_tokens=generation.cached_tokens,
            completion_tokens=generation.generated_tokens,
            draft_tokens=generation.draft_tokens,
            accepted_draft_tokens=generation.accepted_draft_tokens,
            first_text_seconds=first_text - account.started if first_text else None,
            begun_again=generation.begun_again,
        )


async def begun(answer: Admitted) -> Admitted:
    """The same answer, once a worker has accepted it; closed if none does."""
    try:
        await answer.begin()
    except BaseException:
        answer.close()
        raise
    return answer
