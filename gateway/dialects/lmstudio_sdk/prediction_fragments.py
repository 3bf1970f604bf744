"""A prediction's events as the messages of its channel. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from atelier.json_types import Json
from atelier.tools import ToolCallPiece
from gateway.core.events import Delta, Event, Finished, PromptProgress, Reasoning, Statistics, StopReason, ToolCallDelta
from gateway.dialects.lmstudio.lmstudio_translation import STOP_REASONS
from gateway.dialects.lmstudio_sdk.sdk_history import THINK, THOUGHT
from gateway.fleet.snapshot import Instance


@dataclass(slots=True)
class OpenCall:
    """A tool call that is being written."""

    index: int
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class Fragments:
    """Owned by one prediction's task: it keeps what was begun and is to be ended.

    Reasoning stands between tags in the text, since a client makes one text of all fragments and
    puts it into its next prompt. A structured answer is told without, for there the text is the JSON.
    """

    def __init__(self, *, structured: bool) -> None:
        self._structured = structured
        self._reasons = False
        self._call: OpenCall | None = None
        self._tokens = 0

    def messages(self, batch: list[Event], tokens: int) -> list[Json]:
        """`tokens`: of the whole prediction so far; those since the last time go with the first fragment."""
        messages = [message for event in batch for message in self._told(event)]
        first = next((message["fragment"] for message in messages if message["type"] == "fragment"), None)
        if first is not None:
            first["tokensCount"] = tokens - self._tokens
            self._tokens = tokens
        return messages

    def _told(self, event: Event) -> Iterator[Json]:
        match event:
            case PromptProgress():
                yield progress_message(event.done_tokens / event.prompt_tokens if event.prompt_tokens else 1.0)
            case Reasoning(_, text):
                yield from self._reasoning(text)
            case Delta(_, text):
                yield from self._end_reasoning()
                if text:
                    yield fragment(text)
            case ToolCallDelta(_, piece):
                yield from self._end_reasoning()
                yield from self._tool_call(piece)
            case Finished():
                yield from self._end_reasoning()
                yield from self._end_call()

    def _reasoning(self, text: str) -> Iterator[Json]:
        if self._structured:
            return
        if not self._reasons:
            self._reasons = True
            yield fragment(THINK, "reasoningStartTag")
        yield fragment(text, "reasoning")

    def _end_reasoning(self) -> Iterator[Json]:
        if self._reasons:
            self._reasons = False
            yield fragment(THOUGHT, "reasoningEndTag")

    def _tool_call(self, piece: ToolCallPiece) -> Iterator[Json]:
        if self._call is None or self._call.index != piece.index:
            yield from self._end_call()
            self._call = OpenCall(piece.index, piece.id, piece.name)
            yield {"type": "toolCallGenerationStart", "toolCallId": piece.id}
            yield {"type": "toolCallGenerationNameReceived", "name": piece.name}
        if piece.arguments:
            self._call.arguments.append(piece.arguments)
            yield {"type": "toolCallGenerationArgumentFragmentGenerated", "content": piece.arguments}

    def _end_call(self) -> Iterator[Json]:
        call, self._call = self._call, None
        if call is None:
            return
        raw = "".join(call.arguments)
        try:
            arguments = orjson.loads(raw or "{}")
        except orjson.JSONDecodeError:
            arguments = None
        if isinstance(arguments, dict):
            request = {"id": call.id, "type": "function", "name": call.name, "arguments": arguments}
            yield {"type": "toolCallGenerationEnd", "toolCallRequest": request}
        else:  # the completion ended in the middle of it
            error = {"title": f"The call of {call.name} is not complete."}
            yield {"type": "toolCallGenerationFailed", "error": error, "rawContent": raw}


def fragment(content: str, kind: str = "none") -> Json:
    structural = kind.endswith("Tag")
    facts = {"tokensCount": 0, "containsDrafted": False, "reasoningType": kind, "isStructural": structural}
    return {"type": "fragment", "fragment": {"content": content, **facts}}


def progress_message(progress: float) -> Json:
    return {"type": "promptProcessingProgress", "progress": progress}


def stats(finished: Finished, instance: Instance | None, seconds: float) -> Json:
    figures = finished.statistics
    told: Json = {
        "stopReason": STOP_REASONS.get(finished.reason, "failed"),
        "tokensPerSecond": figures.tokens_per_second,
        "numGpuLayers": instance.gpu_layers if instance else 0,
        "timeToFirstTokenSec": figures.time_to_first_token_seconds,
        "totalTimeSec": seconds,
        "promptTokensCount": figures.prompt_tokens,
        "predictedTokensCount": figures.predicted_tokens,
        "totalTokensCount": figures.prompt_tokens + figures.predicted_tokens,
    }
    draft_model = instance.load.get("draft_model") if instance else None
    if draft_model:
        told["usedDraftModelKey"] = draft_model
    if draft_model or figures.draft_tokens:
        told |= _draft_stats(figures)
    return told if finished.stop_string is None else {**told, "stopString": finished.stop_string}


def _draft_stats(figures: Statistics) -> Json:
    return {
        "totalDraftTokensCount": figures.draft_tokens,
        "acceptedDraftTokensCount": figures.accepted_draft_tokens,
        "rejectedDraftTokensCount": figures.draft_tokens - figures.accepted_draft_tokens,
        "ignoredDraftTokensCount": 0,
    }


def stopped(prompt_tokens: int, predicted_tokens: int) -> Finished:
    """The end of a prediction that its client cancelled, which the worker says nothing of any more."""
    figures = Statistics(prompt_tokens=prompt_tokens, predicted_tokens=predicted_tokens)
    return Finished(0, StopReason.USER_STOPPED, None, figures)
