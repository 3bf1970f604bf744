"""What the world sees of one instance, and who waits for it to become ready."""

import asyncio
from dataclasses import replace
from typing import Any

import structlog

from atelier.errors import AtelierError, Unavailable
from registry.feed import Feed
from registry.instances.instance_record import Instance, State

PROGRESS_SECONDS = 0.25  # between two publications of a load's progress
COUNTS_SECONDS = 1.0  # between two publications of how busy it is

_log = structlog.get_logger(__name__)


class Display:
    """The instance as it is and as it was last published. Written by its supervisor alone.

    A change of state is published at once; progress and counts seldom, since a worker's next
    status, a second later at most, brings what was held back.
    """

    def __init__(self, instance: Instance, feed: Feed) -> None:
        self.instance = instance
        self._feed = feed
        self._published = instance
        self._published_at = 0.0
        self._ready: asyncio.Future[Instance | AtelierError] = asyncio.get_running_loop().create_future()
        self.answered = asyncio.Event()  # set by the first state that is not STARTING
        feed.publish(instance)

    async def ready(self) -> Instance:
        """The instance, once it is READY; the error for which it will not be."""
        outcome = await asyncio.shield(self._ready)
        if isinstance(outcome, AtelierError):
            raise type(outcome)(outcome.message, param=outcome.param)  # each waiter raises its own
        return outcome

    def enter(self, state: State, **changes: Any) -> None:
        """Go into a state, and let everyone know."""
        if state is not self.instance.state:
            _log.info("instance_state", instance=self.instance.id, state=state.name, was=self.instance.state.name)
        self.instance = replace(self.instance, state=state, **changes)
        self._publish()
        self._settle(state)
        if state is not State.STARTING:
            self.answered.set()

    def note(self, **changes: Any) -> None:
        """Progress or counts within the same state."""
        self.instance = replace(self.instance, **changes)
        if self.instance == self._published:
            return
        old, new = self._published, self.instance
        counts_only = replace(old, active=new.active, queued=new.queued) == new
        pause = COUNTS_SECONDS if counts_only else PROGRESS_SECONDS
        if asyncio.get_running_loop().time() - self._published_at >= pause:
            self._publish()

    def _publish(self) -> None:
        self._published, self._published_at = self.instance, asyncio.get_running_loop().time()
        self._feed.publish(self.instance)

    def _settle(self, state: State) -> None:
        """Tell those who wait, or, if the last outcome holds no more, let them wait anew."""
        if self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()
        if state is State.READY:
            self._ready.set_result(self.instance)
        elif state is State.FAILED:
            self._ready.set_result(self.instance.error or AtelierError())
        elif state is State.STOPPING:
            self._ready.set_result(Unavailable("The model is being unloaded."))
