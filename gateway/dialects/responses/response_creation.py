"""From a body to its turn, and from the turn to an answer that has begun."""

import time

from gateway.core.call import Account, Origin
from gateway.core.inference import InferenceCore, RunningAnswer, begun
from gateway.dialects.responses.hosted_call_items import read_consent
from gateway.dialects.responses.response_archive import Archive
from gateway.dialects.responses.response_items import new_response_id
from gateway.dialects.responses.response_turn import (
    Turn,
    make_turn,
    own_functions,
    reject_contradictions,
    requested_servers,
    uses_servers,
)
from gateway.dialects.responses.responses_requests import ResponseBody
from gateway.dialects.responses.stored_items import input_items
from gateway.tools.loop.tool_host import ToolHost
from gateway.tools.loop.toolset import Toolset


class ResponseCreator:
    """Creates the responses that clients wait for, and those in the background."""

    def __init__(self, inference: InferenceCore, host: ToolHost, archive: Archive) -> None:
        self._inference = inference
        self._host = host
        self._archive = archive

    async def turn(self, body: ResponseBody, owner: str) -> Turn:
        """The request with the conversation that it continues and the tools of its servers.

        Raises InvalidRequest, UnsupportedField, PreviousResponseNotFound and errors of the MCP servers.
        """
        reject_contradictions(body)
        earlier = await self._archive.earlier(body.previous_response_id, owner)
        response_id = new_response_id()
        items = input_items(body.input, response_id, await self._archive.referenced(body.input, owner))
        consent = read_consent([*earlier, *items], len(earlier))
        toolset = await self._toolset(body, owner)
        return make_turn(response_id, owner, body, items, earlier, consent, toolset, int(time.time()))

    async def start(self, turn: Turn, origin: Origin, account: Account, *, whole: bool = False) -> RunningAnswer:
        """An answer that a worker has accepted, after the approved calls have run. The caller closes it.

        `whole`: the client receives the whole response at the end.
        """
        if turn.toolset is None:
            return await self._inference.start(turn.call, origin, account)
        loop = await self._host.admit(
            turn.call,
            turn.toolset,
            origin,
            account,
            approved=turn.approved,
            resumed=turn.resumed,
            most_calls=turn.body.max_tool_calls,
            whole=whole,
        )
        return await begun(loop)

    async def _toolset(self, body: ResponseBody, owner: str) -> Toolset | None:
        if not uses_servers(body):
            return None
        taken = [tool.name for tool in own_functions(body)]
        return await self._host.toolset(requested_servers(body), owner, taken=taken, approvals=True)
