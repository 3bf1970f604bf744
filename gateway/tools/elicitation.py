"""Elicitation: questions of MCP servers to the user, and the way their answers come, from this gateway or another.

While a question is open it is also stored in the registry. Another gateway that receives the answer, such as behind a
load balancer, validates it against the stored question and stores it beside that. The gateway that waits polls for it.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from mcp_types import ElicitRequestParams, ElicitResult

from atelier.errors import AtelierError, NotFound, ResponseNotFound
from gateway.core.mcp_server_config import ServerConfig
from gateway.core.question import (
    CANCELLED,
    DECLINED,
    ElicitationAnswer,
    Question,
    checked,
    read_question,
    stored_answer,
    stored_question,
    write_answer,
    write_question,
)
from gateway.fleet.registry_client import ResponseStore
from gateway.tools.mcp_client.pausable_deadline import PausableDeadline

KIND = "mcp-elicitation"  # of what is stored
POLL_SECONDS = 1.0
CLOSE_SECONDS = 5.0
MOST_QUESTIONS = 16  # of one call
ID = re.compile("elicit_[0-9a-f]{32}")
NOT_OPEN = "There is no open question with this id: it was answered, or its call has ended."

OnAsked = Callable[[str, Question], None]
"""Is given a question's id and the question, once it can be answered."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _OpenQuestion:
    id: str
    owner: str
    question: Question
    answer: asyncio.Future[ElicitationAnswer]

    def settle(self, answer: ElicitationAnswer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class OpenQuestions:
    """Owns this gateway's questions, from when a server asks until there is an answer or the call has ended."""

    def __init__(self, stored: ResponseStore, seconds: float) -> None:
        """`seconds`: for the user to answer all questions of one call."""
        self.seconds = seconds
        self._stored = stored
        self._open: dict[str, _OpenQuestion] = {}
        self._relays: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question, owner: str, on_asked: OnAsked, seconds: float) -> ElicitationAnswer:
        """The user's answer; CANCELLED after `seconds`."""
        opened = _OpenQuestion(
            f"elicit_{uuid.uuid4().hex}", owner, question, asyncio.get_running_loop().create_future()
        )
        self._open[opened.id] = opened
        try:
            async with asyncio.timeout(seconds):
                if await self._store(opened):
                    self._start_relay(opened)
                on_asked(opened.id, question)
                return await opened.answer
        except TimeoutError:
            return CANCELLED
        finally:
            del self._open[opened.id]
            opened.answer.cancel()

    async def answer(self, id: str, owner: str, answer: ElicitationAnswer) -> None:
        """Raises NotFound, for other owners' questions too. Raises InvalidRequest for an invalid answer, after which
        the question stays open.
        """
        opened = self._open.get(id)
        if opened is None:
            await self._relay_answer(id, owner, answer)
        elif opened.owner != owner or opened.answer.done():
            raise NotFound(NOT_OPEN, param="id")
        else:
            opened.settle(checked(opened.question, answer))

    async def close(self) -> None:
        """Cancels all open questions."""
        for opened in self._open.values():
            opened.settle(CANCELLED)
        if self._relays:
            _, late = await asyncio.wait(self._relays, timeout=CLOSE_SECONDS)
            for relay in late:
                relay.cancel()

    async def _relay_answer(self, id: str, owner: str, answer: ElicitationAnswer) -> None:
        """To the gateway that has the question open."""
        if not ID.fullmatch(id):
            raise NotFound(NOT_OPEN, param="id")
        try:
            stored = await self._stored.get(id, owner)
        except ResponseNotFound:
            raise NotFound(NOT_OPEN, param="id") from None
        # A gateway that was killed leaves its questions in the store.
        if stored.age > self.seconds or await self._relayed_answer(id, owner) is not None:
            raise NotFound(NOT_OPEN, param="id")
        valid = checked(stored_question(stored.body), answer)
        await self._stored.put(_answer_id(id), owner, write_answer(valid), created_at=0)

    async def _relayed_answer(self, id: str, owner: str) -> ElicitationAnswer | None:
        try:
            return stored_answer((await self._stored.get(_answer_id(id), owner)).body)
        except ResponseNotFound:
            return None

    def _start_relay(self, opened: _OpenQuestion) -> None:
        relay = asyncio.create_task(self._relay(opened))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, opened: _OpenQuestion) -> None:
        """Polls for an answer that another gateway has received, and removes both from the store at the end."""
        while not opened.answer.done():
            await asyncio.wait({opened.answer}, timeout=POLL_SECONDS)
            with contextlib.suppress(AtelierError):  # the registry is unreachable: the next poll may succeed
                if not opened.answer.done() and (answer := await self._relayed_answer(opened.id, opened.owner)):
                    opened.settle(answer)
        for id in (opened.id, _answer_id(opened.id)):
            with contextlib.suppress(AtelierError):
                await self._stored.delete(id, opened.owner)

    async def _store(self, opened: _OpenQuestion) -> bool:
        """Whether other gateways can receive the answer; without the registry only this one can."""
        try:
            await self._stored.put(opened.id, opened.owner, write_question(opened.question), created_at=0)
        except AtelierError:
            return False
        return True


def _answer_id(id: str) -> str:
    return f"{id}.answer"


@dataclass(frozen=True, slots=True)
class Respondent:
    """The client of one answer, which answers the questions of that answer's tool calls."""

    questions: OpenQuestions
    owner: str


class CallElicitation:
    """Asks the questions of one call, up to a number and a time. An `ElicitationHandler`."""

    def __init__(self, respondent: Respondent, tool: str, deadline: PausableDeadline, on_asked: OnAsked) -> None:
        """`deadline`: of the answer's calls, paused while the user is asked."""
        self._respondent = respondent
        self._tool = tool
        self._deadline = deadline
        self._on_asked = on_asked
        self._questions_left = MOST_QUESTIONS
        self._seconds_left = respondent.questions.seconds

    async def __call__(self, server: ServerConfig, params: ElicitRequestParams) -> ElicitResult:
        question = read_question(params)
        if question is None or self._questions_left <= 0 or self._seconds_left <= 0:
            return DECLINED.result()
        self._questions_left -= 1
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        with self._deadline.paused():
            answer = await self._respondent.questions.ask(
                question, self._respondent.owner, self._on_asked, self._seconds_left
            )
        self._seconds_left -= loop.time() - asked_at
        _log.info("mcp_elicitation", server=server.label, tool=self._tool, action=answer.action)
        return answer.result()
