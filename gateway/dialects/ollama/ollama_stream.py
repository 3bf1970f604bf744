"""Ollama's streams of generations: one JSON object per line."""

from collections.abc import Mapping
from typing import ClassVar

import orjson

from atelier.generation_types import Finished
from gateway.core.call import Account
from gateway.core.events import CompletionDraft, Delta, Event, Reasoning, ToolCallDelta
from gateway.core.inference import RunningAnswer
from gateway.dialects.ollama.ollama_replies import (
    OllamaFacts,
    OllamaPart,
    PartBuilder,
    done_facts,
    logprob_list,
    reply_object,
    split_calls,
)
from gateway.dialects.reply import EventStream
from gateway.http.streaming import HEADERS as EVENT_HEADERS

HEADERS = {**EVENT_HEADERS, "content-type": "application/x-ndjson"}


def line(value: object) -> bytes:
    return orjson.dumps(value) + b"\n"


class LineRenderer:
    """One generation's lines. The last one, with `done`, is sent only if the generation succeeded."""

    def __init__(self, model: str, part: PartBuilder, account: Account, *, thinking: bool) -> None:
        """`thinking`: whether it is sent. The time until now is counted as the load's."""
        self._model = model
        self._part = part
        self._account = account
        self._thinking = thinking
        self._load_seconds = account.seconds()
        self._calls = CompletionDraft()

    def opening(self) -> bytes:
        return b""

    def event(self, event: Event) -> bytes:
        match event:
            case Delta(_, text, logprobs):
                return self._line(self._part(text, "", ()), {"logprobs": logprob_list(logprobs)} if logprobs else {})
            case Reasoning(_, text):
                return self._line(self._part("", text, ()), {}) if self._thinking else b""
            case ToolCallDelta():
                self._calls.add(event)
                return b""
            case Finished():
                return self._call_line(event)
        return b""

    def closing(self, generation: RunningAnswer) -> bytes:
        facts = done_facts(generation.ends[0], self._account.seconds(), self._load_seconds)
        return line(reply_object(self._model, self._part("", "", ()), facts, done=True))

    def _call_line(self, finished: Finished) -> bytes:
        """All tool calls, once they are complete: their arguments are objects."""
        calls, text = split_calls(self._calls.completion(finished, logprobs=False).tool_calls)
        return self._line(self._part(text, "", calls), {}) if calls or text else b""

    def _line(self, part: OllamaPart, facts: OllamaFacts) -> bytes:
        return line(reply_object(self._model, part, facts, done=False))


class LineStream(EventStream):
    """A generation in lines. An error is a line too, after which the stream ends without a `done` line."""

    frame_headers: ClassVar[Mapping[str, str]] = HEADERS
