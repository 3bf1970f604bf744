"""One instance as the feed publishes it, and the callers that wait until it is ready."""

import asyncio
from dataclasses import replace
from typing import Unpack

import structlog

from atelier.errors import AtelierError, Unavailable
from registry.feed import Feed
from registry.instances.instance_record import Instance, InstanceChanges, InstanceState

PROGRESS_SECONDS = 0.25  # between two publications of a load's progress
COUNTS_SECONDS = 1.0  # between two publications of how busy it is

_log = structlog.get_logger(__name__)


class PublishedState:
    """The instance as it is, and as it was last published. Written only by its supervisor and worker monitor.

    A change of state is published at once. Progress and counts are published rarely: the worker's next status,
    a second later at most, includes what was not published.
    """

    def __init__(self, instance: Instance, feed: Feed) -> None:
        self.instance = instance
        self._feed = feed
        self._published = instance
        self._published_at = 0.0
        self._ready: asyncio.Future[Instance | AtelierError] = asyncio.get_running_loop().create_future()
        self.reported = asyncio.Event()  # set by the first state other than STARTING
        feed.publish(instance)

    @property
    def state(self) -> InstanceState:
        return self.instance.state

    async def ready(self) -> Instance:
        """The instance once it is READY; raises the error that prevents it."""
        outcome = await asyncio.shield(self._ready)
        if isinstance(outcome, AtelierError):
            raise type(outcome)(outcome.message, param=outcome.param)  # each waiter raises an exception of its own
        return outcome

    def enter(self, state: InstanceState, **changes: Unpack[InstanceChanges]) -> None:
        """Enter a state, and publish it."""
        if state is not self.instance.state:
            _log.info("instance_state", instance=self.instance.id, state=state.name, was=self.instance.state.name)
        self.instance = replace(self.instance, state=state, **changes)
        self._publish()
        self._settle(state)
        if state is not InstanceState.STARTING:
            self.reported.set()

    def note(self, **changes: Unpack[InstanceChanges]) -> None:
        """Progress or counts within the same state."""
        self.instance = replace(self.instance, **changes)
        if self.instance == self._published:
            return
        old, new = self._published, self.instance
        counts_only = (
            replace(
                old,
                active=new.active,
                queued=new.queued,
                cache_ram_bytes=new.cache_ram_bytes,
                cache_ram_limit_bytes=new.cache_ram_limit_bytes,
            )
            == new
        )
        pause = COUNTS_SECONDS if counts_only else PROGRESS_SECONDS
        if asyncio.get_running_loop().time() - self._published_at >= pause:
            self._publish()

    def _publish(self) -> None:
        self._published, self._published_at = self.instance, asyncio.get_running_loop().time()
        self._feed.publish(self.instance)

    def _settle(self, state: InstanceState) -> None:
        """Resolve the future of those that wait; a new state invalidates an earlier outcome."""
        if self._ready.done():
            self._ready = asyncio.get_running_loop().create_future()
        if state is InstanceState.READY:
            self._ready.set_result(self.instance)
        elif state is InstanceState.FAILED:
            self._ready.set_result(self.instance.error or AtelierError())
        elif state is InstanceState.STOPPING:
            self._ready.set_result(Unavailable("The model is being unloaded."))
