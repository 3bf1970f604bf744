"""The one core that every dialect calls: resolve, admit, route, stream, account."""

from atelier.errors import AtelierError
from atelier.metrics import GatewayMetrics
from gateway.core.account import Account
from gateway.core.admission import Admission, Ticket
from gateway.core.answer import begun
from gateway.core.call import Call, Origin, Plan, make_plan
from gateway.core.deadline import Deadline
from gateway.core.dispatcher import Dispatcher
from gateway.core.generation import Generation
from gateway.core.image_reader import ImageReader
from gateway.core.workers import Workers
from gateway.fleet.watcher import Watcher


class Inference:
    """Starts generations. Owns the set of those that run."""

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
        """`queue_timeout`: seconds that a worker may let a request wait for its turn."""
        self._watcher = watcher
        self._dispatcher = dispatcher
        self._workers = workers
        self._admission = admission
        self._metrics = metrics
        self._images = images
        self._queue_timeout = queue_timeout
        self._running: set[Generation] = set()

    def check(self, call: Call, origin: Origin) -> Plan:
        """What `start` would begin; raises what is wrong with the call, before anything is looked for to answer it."""
        return make_plan(call, origin, self._watcher.known())

    def enter(self) -> Ticket:
        """A place for an answer of several generations, which its caller leaves; Overloaded, Draining."""
        return self._admission.enter()

    async def start(self, call: Call, origin: Origin, account: Account, place: Ticket | None = None) -> Generation:
        """A generation that a worker has accepted; the caller closes it.

        Raises what stands against it, as the client should see it. `place`: that the caller has, and keeps.
        """
        return await begun(await self.admit(call, origin, account, place))

    async def admit(self, call: Call, origin: Origin, account: Account, place: Ticket | None = None) -> Generation:
        """A generation that has yet to begin, for callers that tell of the load meanwhile; the caller closes it."""
        generation = self._enter(call, origin, account, place)
        if call.images:
            try:
                await generation.read_images(self._images)
            except BaseException:
                generation.close()
                raise
        return generation

    def end_all(self, error: AtelierError) -> None:
        """Every generation that runs ends with this error."""
        for generation in list(self._running):
            generation.fail(error)

    def _enter(self, call: Call, origin: Origin, account: Account, place: Ticket | None) -> Generation:
        plan = self.check(call, origin)
        account.model = plan.model.key
        ticket = place or self._admission.enter()
        generation = Generation(
            plan,
            self._deadline(call, account),
            self._dispatcher,
            self._workers,
            on_begin=ticket.begin,
            on_close=lambda closed: self._settle(closed, None if place else ticket, account),
        )
        self._running.add(generation)
        return generation

    def _deadline(self, call: Call, account: Account) -> Deadline:
        end = account.started + call.timeout if call.timeout is not None else None
        return Deadline(end, self._queue_timeout)

    def _settle(self, generation: Generation, ticket: Ticket | None, account: Account) -> None:
        self._running.discard(generation)
        if ticket is not None:
            ticket.leave()
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
