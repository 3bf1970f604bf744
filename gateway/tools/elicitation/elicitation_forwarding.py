"""What the servers of an answer's calls ask the user, on its way to the client that waits for the answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from mcp_types import ElicitRequestParams, ElicitResult

from gateway.core.events import Elicited
from gateway.core.mcp_server import Server
from gateway.core.question import DECLINED, read_question
from gateway.tools.elicitation.open_questions import Questions
from gateway.tools.loop.hosted_call import HostedCall
from gateway.tools.mcp_client.pausable_deadline import Clock

MOST_QUESTIONS = 16  # of one call

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asking:
    """Whose client answers what servers ask: the answer's."""

    questions: Questions
    owner: str


class CallsQuestions:
    """Those of one call. An `Elicit`."""

    def __init__(self, asking: Asking, call: HostedCall, clock: Clock, tell: Callable[[Elicited], None]) -> None:
        """`clock`: of the answer's calls."""
        self._asking = asking
        self._call = call
        self._clock = clock
        self._tell = tell
        self._room = MOST_QUESTIONS
        self._seconds = asking.questions.seconds

    async def __call__(self, server: Server, params: ElicitRequestParams) -> ElicitResult:
        question = read_question(params)
        if question is None or self._room <= 0 or self._seconds <= 0:
            return DECLINED.result()

        def tell(id: str) -> None:
            call = self._call
            self._tell(Elicited(0, call.number, call.id, call.tool, id, question))

        self._room -= 1
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with self._clock.standing():
            answer = await self._asking.questions.ask(question, self._asking.owner, tell, self._seconds)
        self._seconds -= loop.time() - begun
        _log.info("mcp_elicitation", server=server.label, tool=self._call.tool.name, action=answer.action)
        return answer.result()
