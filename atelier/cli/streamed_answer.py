"""One streamed answer, and its statistics under LM Studio's names."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from atelier.cli.rest_client import Server
from atelier.json_types import Json

PATH = "/api/v0/chat/completions"
LONGEST_SHOWN = 100  # characters of a call's arguments or result

# LM Studio's names, in its order, and the names in its REST API.
STATISTICS = {
    "stopReason": "stop_reason",
    "stopString": "stop_string",
    "tokensPerSecond": "tokens_per_second",
    "numGpuLayers": "num_gpu_layers",
    "timeToFirstTokenSec": "time_to_first_token",
    "totalTimeSec": "total_time_sec",
    "promptTokensCount": "prompt_tokens_count",
    "predictedTokensCount": "predicted_tokens_count",
    "totalTokensCount": "total_tokens_count",
    "usedDraftModelKey": "draft_model",
    "totalDraftTokensCount": "total_draft_tokens_count",
    "acceptedDraftTokensCount": "accepted_draft_tokens_count",
    "rejectedDraftTokensCount": "rejected_draft_tokens_count",
    "ignoredDraftTokensCount": "ignored_draft_tokens_count",
}


class StreamedAnswer:
    """Iterate once for the pieces of text. `text` is the text so far; the other attributes are complete at the end."""

    def __init__(
        self, server: Server, body: Mapping[str, object], note: Callable[[str], None], begun: str = ""
    ) -> None:
        """`note` receives a line for each finished tool call. `begun`: the text that the server continues."""
        self._note = note
        self._calls: dict[int, Json] = {}  # of MCP tools, by index
        self._events = server.stream(PATH, {**body, "stream": True})
        self.text = begun
        self.model = str(body["model"])
        self.finish_reason: str | None = None
        self.statistics: Json = {}

    def __iter__(self) -> Iterator[str]:
        with closing(self._events) as events:
            for event in events:
                yield from self._pieces(event)

    def _pieces(self, event: Json) -> Iterator[str]:
        self.model = event.get("model", self.model)
        self.statistics = statistics(event["stats"]) if event.get("stats") else self.statistics
        for choice in event.get("choices", []):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            for call in choice.get("delta", {}).get("mcp_calls", []):
                self._note_call(call)
            if piece := choice.get("delta", {}).get("content"):
                self.text += piece
                yield piece

    def _note_call(self, delta: Json) -> None:
        """Collect a call's deltas; note the call once it has a status, when its arguments are complete."""
        call = self._calls.setdefault(delta["index"], {})
        arguments = call.get("arguments", "") + delta.get("arguments", "")
        call.update({name: value for name, value in delta.items() if name != "index"}, arguments=arguments)
        if "status" in call:
            result = call["output"] if call["status"] == "completed" else f"failed: {call['error']}"
            self._note(f"{call['server_label']}: {call['name']} {shortened(arguments)} -> {shortened(result or '')}")

    def as_json(self) -> Json:
        calls = {"mcp_calls": list(self._calls.values())} if self._calls else {}
        return {
            "model": self.model,
            "content": self.text,
            **calls,
            "finish_reason": self.finish_reason,
            "stats": self.statistics,
        }


def shortened(text: str) -> str:
    """The text in one line of at most 100 characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 3] + "..."


def statistics(stats: Mapping[str, object]) -> Json:
    """The statistics that the server sent, under LM Studio's names."""
    return {name: stats[source] for name, source in STATISTICS.items() if stats.get(source) is not None}


def statistics_lines(values: Mapping[str, object]) -> str:
    """One line each: `tokensPerSecond: 41.25`."""
    return "\n".join(f"{name}: {_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return json.dumps(value) if isinstance(value, str) and not value.isprintable() else str(value)
