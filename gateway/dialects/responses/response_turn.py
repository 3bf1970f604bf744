"""One request for a response, with what it goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from atelier.json_types import Json
from gateway.core.call import Call
from gateway.dialects.responses.call_approvals import Consent, approved_calls
from gateway.dialects.responses.hosted_call_items import untold_listings
from gateway.dialects.responses.hosted_call_messages import ServedCalls
from gateway.dialects.responses.responses_requests import ResponseBody
from gateway.dialects.responses.responses_translation import response_call
from gateway.tools.loop.toolset import HostedCall, ServerListing, Toolset


@dataclass(frozen=True, slots=True)
class Turn:
    """`items`: of its own input, without what it continues. `toolset`: None where it names no MCP servers."""

    id: str
    owner: str
    body: ResponseBody
    items: Sequence[Json]
    call: Call
    created_at: int
    earlier: Sequence[Json] = ()
    consent: Consent = field(default_factory=Consent)
    toolset: Toolset | None = None
    approved: Sequence[HostedCall] = ()  # that run before all else

    @property
    def stored(self) -> bool:
        """Whether it is to be."""
        return self.body.store is not False

    @property
    def listings(self) -> Sequence[ServerListing]:
        """Of the servers that the response has to tell of."""
        return untold_listings(self.toolset.listings, [*self.earlier, *self.items]) if self.toolset else []

    def resumed(self, results: Sequence[Json]) -> Call:
        """The call, with the tool messages of the approved calls in their places."""
        served = ServedCalls(self.consent, self.toolset, {each["tool_call_id"]: each for each in results})
        return response_call(self.body, self.items, self.earlier, served)


def make_turn(
    id: str,
    owner: str,
    body: ResponseBody,
    items: Sequence[Json],
    earlier: Sequence[Json],
    consent: Consent,
    toolset: Toolset | None,
    created_at: int,
) -> Turn:
    """Raises what stands against it."""
    approved = approved_calls(consent, toolset)
    call = response_call(body, items, earlier, ServedCalls(consent, toolset))
    return Turn(id, owner, body, items, call, created_at, earlier, consent, toolset, approved)
