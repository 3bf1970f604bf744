"""Responses in the background. Each runs in the gateway that accepted it; any gateway reports its status.

While it runs, two small records accompany the response's: the heartbeat, written every few seconds, which shows other
gateways that its gateway is running; and a request to stop, which another gateway may write.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import cast

import structlog

from atelier.errors import AtelierError, Draining, InvalidRequest, ResponseNotFound
from gateway.core.call import Account, Origin
from gateway.core.inference import InferenceCore
from gateway.dialects.responses.response_archive import Archive, Record
from gateway.dialects.responses.response_creation import ResponseCreator
from gateway.dialects.responses.response_object import (
    ResponseObject,
    ResponseStatus,
    cancelled_response,
    error_object,
    failed_response,
    unfinished_response,
)
from gateway.dialects.responses.response_turn import Turn
from gateway.dialects.responses.responses_stream import collected_response
from gateway.fleet.registry_client import ResponseStore

BEAT_SECONDS = 5.0
LOST_SECONDS = 30.0  # without a heartbeat, until a run's gateway is considered lost
SAVE_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)  # before each attempt to store a result
CLOSE_SECONDS = 5.0

CANCEL, DISCARD = b'"cancel"', b'"discard"'


_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BackgroundRun:
    """One response that is being generated, or has yet to be stored."""

    turn: Turn
    origin: Origin
    model: str
    status: ResponseStatus = "queued"
    discarded: bool = False  # its record was deleted
    result: ResponseObject | None = None  # complete, but not stored yet
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[ResponseObject] | None = None
    follower: asyncio.Task[None] | None = None


class Background:
    """Owns the runs of this gateway, from their start until their results are stored."""

    def __init__(
        self, inference: InferenceCore, creator: ResponseCreator, archive: Archive, runs: ResponseStore
    ) -> None:
        self._inference = inference
        self._creator = creator
        self._archive = archive
        self._stored = runs
        self._runs: dict[str, BackgroundRun] = {}
        self._closing = False

    async def start(self, turn: Turn, origin: Origin) -> ResponseObject:
        """The queued response, stored. Raises the errors that can be known before it runs."""
        plan = self._inference.check(turn.call, origin)
        response = unfinished_response(turn, plan.name, "queued")
        await self._archive.put(turn, response)
        run = BackgroundRun(turn, origin, plan.name)
        await self._beat(run)
        self._runs[turn.id] = run
        run.work = asyncio.create_task(self._generate(run))
        run.follower = asyncio.create_task(self._follow(run))
        return response

    async def look(self, id: str, owner: str) -> ResponseObject:
        """The response as it is now, in whichever gateway it runs. Raises ResponseNotFound."""
        record = await self._archive.get(id, owner)
        if not record.unfinished:
            return record.response
        if (run := self._runs.get(id)) is not None:
            return run.result or {**record.response, "status": run.status}
        try:
            beat = await self._stored.get(_run_id(id), owner)
        except ResponseNotFound:
            return await self._lost(id, owner)
        if beat.age > LOST_SECONDS:
            return await self._lost(id, owner)
        return {**record.response, "status": cast(ResponseStatus, beat.body.decode().strip('"'))}

    async def cancel(self, id: str, owner: str) -> ResponseObject:
        """The response, cancelled unless it was finished. Another gateway cancels it at its next heartbeat."""
        response = await self.look(id, owner)
        if not response["background"]:
            raise InvalidRequest("Only a response in the background can be cancelled.", param="background")
        if not Record(response, []).unfinished:
            return response
        await self._stop(id, owner, CANCEL)
        return await self.look(id, owner)

    async def delete(self, id: str, owner: str) -> None:
        """Delete it, and stop it if it runs. Raises ResponseNotFound."""
        record = await self._archive.get(id, owner)
        if record.unfinished:
            await self._stop(id, owner, DISCARD)
        await self._archive.delete(id, owner)

    async def close(self) -> None:
        """End the running responses as failed."""
        self._closing = True
        followers = [run.follower for run in self._runs.values() if run.follower is not None]
        for run in self._runs.values():
            if run.work is not None:
                run.work.cancel()
        if followers:
            _, late = await asyncio.wait(followers, timeout=CLOSE_SECONDS)
            for follower in late:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    async def _stop(self, id: str, owner: str, reason: bytes) -> None:
        if (run := self._runs.get(id)) is None:
            await self._stored.put(_stop_id(id), owner, reason, created_at=0)
            return
        run.discarded = run.discarded or reason == DISCARD
        assert run.work is not None
        assert run.follower is not None
        run.work.cancel()
        await asyncio.wait([run.follower])

    async def _generate(self, run: BackgroundRun) -> ResponseObject:
        turn = run.turn
        account = Account(run.origin.request_id)
        answer = await self._creator.start(turn, run.origin, account, whole=True)
        try:
            run.status = "in_progress"
            run.changed.set()
            return collected_response(turn, answer, await answer.events())
        finally:
            answer.close()

    async def _follow(self, run: BackgroundRun) -> None:
        assert run.work is not None
        beating = asyncio.create_task(self._keep_beating(run))
        try:
            await asyncio.wait([run.work])
            run.result = self._result(run, run.work)
            _log.info("background_response", id=run.turn.id, status=run.result["status"], model=run.model)
            if not run.discarded:
                await self._save(run, run.result)
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            del self._runs[run.turn.id]
        await self._forget(run)

    def _result(self, run: BackgroundRun, work: asyncio.Task[ResponseObject]) -> ResponseObject:
        if work.cancelled():
            if not self._closing:
                return cancelled_response(run.turn, run.model)
            stopped = Draining("The server stopped before the response was complete; send the request again.")
            return failed_response(run.turn, run.model, stopped)
        error = work.exception()
        if error is None:
            return work.result()
        if not isinstance(error, AtelierError):
            _log.error("background_response_failed", id=run.turn.id, exc_info=error)
            error = AtelierError()
        return failed_response(run.turn, run.model, error)

    async def _save(self, run: BackgroundRun, response: ResponseObject) -> None:
        """Retry until it is stored, for as long as the registry may reasonably be unavailable."""
        for pause in SAVE_PAUSES:
            await asyncio.sleep(pause)
            try:
                await self._archive.put(run.turn, response)
            except AtelierError as error:
                _log.warning("response_not_stored", id=run.turn.id, reason=error.code)
            else:
                return

    async def _keep_beating(self, run: BackgroundRun) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.changed.wait(), BEAT_SECONDS)
            run.changed.clear()
            with contextlib.suppress(AtelierError):  # the registry is unavailable: the next heartbeat may reach it
                await self._beat(run)
                await self._obey(run)

    async def _beat(self, run: BackgroundRun) -> None:
        body = f'"{run.status}"'.encode()
        await self._stored.put(_run_id(run.turn.id), run.turn.owner, body, created_at=run.turn.created_at)

    async def _obey(self, run: BackgroundRun) -> None:
        """Carry out a stop that was requested of another gateway."""
        try:
            request = await self._stored.get(_stop_id(run.turn.id), run.turn.owner)
        except ResponseNotFound:
            return
        run.discarded = run.discarded or request.body == DISCARD
        if run.work is not None:
            run.work.cancel()

    async def _forget(self, run: BackgroundRun) -> None:
        for id in (_run_id(run.turn.id), _stop_id(run.turn.id)):
            with contextlib.suppress(AtelierError):
                await self._stored.delete(id, run.turn.owner)

    async def _lost(self, id: str, owner: str) -> ResponseObject:
        """The response as failed, unless it has ended in the meantime."""
        record = await self._archive.get(id, owner)
        if not record.unfinished:
            return record.response
        error = AtelierError("The gateway that ran it ended before it was complete; send the request again.")
        return {**record.response, "status": "failed", "error": error_object(error)}


def _run_id(response_id: str) -> str:
    return f"{response_id}.run"


def _stop_id(response_id: str) -> str:
    return f"{response_id}.stop"
