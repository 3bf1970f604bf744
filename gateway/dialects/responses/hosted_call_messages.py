"""Calls of servers' tools in a conversation, as chat templates take them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from atelier.json_types import Json
from gateway.core.call import tool_call_entry, tool_message
from gateway.dialects.responses.call_approvals import Consent
from gateway.dialects.responses.hosted_call_items import outcome_text
from gateway.tools.loop.toolset import Toolset

UNANSWERED = "This call has not run: nobody has agreed to it yet."
DECLINED = "This call has not run: the user declined it."


@dataclass(frozen=True, slots=True)
class ServedCalls:
    """`results`: tool messages of the calls that have run since they were agreed to, by the ids of what asked."""

    consent: Consent = field(default_factory=Consent)
    toolset: Toolset | None = None
    results: Mapping[str, Json] = field(default_factory=dict)

    def messages(self, item: Json) -> tuple[Json, Json] | None:
        """The call and its tool message; None where the prompt has nothing of the item."""
        if item["type"] == "mcp_call":
            if item.get("status") == "incomplete":  # cut off: its arguments are no JSON, and it did not run
                return None
            return self._call(item), self._result(item, outcome_text(item))
        if item["id"] in self.consent.ran:  # the call's own item follows
            return None
        return self._call(item), self.results.get(item["id"]) or self._result(item, self._refusal(item["id"]))

    def _call(self, item: Json) -> Json:
        return tool_call_entry(item["id"], self._shown(item), item["arguments"])

    def _result(self, item: Json, content: str) -> Json:
        return tool_message(item["id"], self._shown(item), content)

    def _refusal(self, id: str) -> str:
        answer = self.consent.answers.get(id)
        if answer is None or answer["approve"]:  # which is about to run, or never came to it
            return UNANSWERED
        return f"{DECLINED} {answer['reason']}" if answer.get("reason") else DECLINED

    def _shown(self, item: Json) -> str:
        """As the model knows the tool now, or else as its server does."""
        tool = self.toolset.find(item["server_label"], item["name"]) if self.toolset else None
        return tool.shown if tool else item["name"]
