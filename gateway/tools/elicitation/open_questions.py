"""The open questions of a gateway, and the way by which their answers come, from this gateway or another.

While a question is open, it lies in the registry: another gateway, to which a balancer has taken the answer, checks
the answer against it and leaves it there, beside the question. Who waits looks for it now and then.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from atelier.errors import AtelierError, NotFound, ResponseNotFound
from gateway.core.question import (
    CANCELLED,
    Answer,
    Question,
    checked,
    stored_answer,
    stored_question,
    write_answer,
    write_question,
)
from gateway.fleet.response_store import Stored

KIND = "mcp-elicitation"  # of what is stored
LOOK_SECONDS = 1.0
CLOSE_SECONDS = 5.0
ID = re.compile("elicit_[0-9a-f]{32}")
GONE = "There is no open question of this id: it has been answered, or nobody waits for the answer any more."


@dataclass(frozen=True, slots=True)
class _Open:
    id: str
    owner: str
    question: Question
    answer: asyncio.Future[Answer]

    def settle(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Questions:
    """Owns this gateway's, from when a server asks until there is an answer, or nobody waits for one."""

    def __init__(self, stored: Stored, seconds: float) -> None:
        """`seconds`: that users may take for all questions of one call."""
        self.seconds = seconds
        self._stored = stored
        self._open: dict[str, _Open] = {}
        self._relays: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question, owner: str, tell: Callable[[str], None], seconds: float) -> Answer:
        """What the user says; CANCELLED after so many seconds. `tell`: is given the question's id once it is open."""
        opened = _Open(f"elicit_{uuid.uuid4().hex}", owner, question, asyncio.get_running_loop().create_future())
        self._open[opened.id] = opened
        try:
            async with asyncio.timeout(seconds):
                if await self._keep(opened):
                    self._start_relay(opened)
                tell(opened.id)
                return await opened.answer
        except TimeoutError:
            return CANCELLED
        finally:
            del self._open[opened.id]
            opened.answer.cancel()

    async def answer(self, id: str, owner: str, answer: Answer) -> None:
        """NotFound, for others' as well; InvalidRequest where it does not fit, and the question stays open."""
        opened = self._open.get(id)
        if opened is None:
            await self._pass_on(id, owner, answer)
        elif opened.owner != owner or opened.answer.done():
            raise NotFound(GONE, param="id")
        else:
            opened.settle(checked(opened.question, answer))

    async def close(self) -> None:
        """Ends what waits, as cancelled."""
        for opened in self._open.values():
            opened.settle(CANCELLED)
        if self._relays:
            _, late = await asyncio.wait(self._relays, timeout=CLOSE_SECONDS)
            for relay in late:
                relay.cancel()

    async def _pass_on(self, id: str, owner: str, answer: Answer) -> None:
        """To the gateway that waits, if one does."""
        if not ID.fullmatch(id):
            raise NotFound(GONE, param="id")
        try:
            kept = await self._stored.get(id, owner)
        except ResponseNotFound:
            raise NotFound(GONE, param="id") from None
        # Its gateway may have been killed: then nobody has taken the question back.
        if kept.age > self.seconds or await self._passed_on(id, owner) is not None:
            raise NotFound(GONE, param="id")
        fitting = checked(stored_question(kept.body), answer)
        await self._stored.put(_answer_id(id), owner, write_answer(fitting), created_at=0)

    async def _passed_on(self, id: str, owner: str) -> Answer | None:
        try:
            return stored_answer((await self._stored.get(_answer_id(id), owner)).body)
        except ResponseNotFound:
            return None

    def _start_relay(self, opened: _Open) -> None:
        relay = asyncio.create_task(self._relay(opened))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, opened: _Open) -> None:
        """Looks for what other gateways have taken, as long as the question is open, and leaves nothing behind."""
        while not opened.answer.done():
            await asyncio.wait({opened.answer}, timeout=LOOK_SECONDS)
            with contextlib.suppress(AtelierError):  # the registry is away: the next look may reach it
                if not opened.answer.done() and (found := await self._passed_on(opened.id, opened.owner)):
                    opened.settle(found)
        for id in (opened.id, _answer_id(opened.id)):
            with contextlib.suppress(AtelierError):
                await self._stored.delete(id, opened.owner)

    async def _keep(self, opened: _Open) -> bool:
        """Whether others can take the answer: without the registry only this gateway does."""
        try:
            await self._stored.put(opened.id, opened.owner, write_question(opened.question), created_at=0)
        except AtelierError:
            return False
        return True


def _answer_id(id: str) -> str:
    return f"{id}.answer"
