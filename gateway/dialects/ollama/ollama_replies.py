"""The core's events and completions as Ollama's objects. Pure, but for the clock."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from atelier.json_types import Json
from gateway.core.events import Completion, Finished, StopReason, TokenLogprob, ToolCall
from gateway.dialects.openai.openai_logprobs import chat_logprobs

LENGTH = frozenset({StopReason.MAX_PREDICTED_TOKENS_REACHED, StopReason.CONTEXT_LENGTH_REACHED})

Part = Callable[[str, str, Sequence[Json]], Json]
"""What carries text, thinking and tool calls: a chat's message, or a response."""


def chat_part(text: str, thinking: str = "", calls: Sequence[Json] = ()) -> Json:
    message: Json = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def generate_part(text: str, thinking: str = "", calls: Sequence[Json] = ()) -> Json:
    """Without tool calls, as there are no tools."""
    return {"response": text, "thinking": thinking} if thinking else {"response": text}


def reply_object(model: str, part: Json, *, done: bool, **more: Any) -> Json:
    return {"model": model, "created_at": rfc3339(), **part, "done": done, **more}


def whole_part(part: Part, completion: Completion, *, thinking: bool) -> Json:
    calls, written = told_calls(completion.tool_calls)
    told = part(completion.text + written, completion.reasoning if thinking else "", calls)
    return told if completion.logprobs is None else {**told, "logprobs": logprob_list(completion.logprobs)}


def told_calls(calls: Sequence[ToolCall]) -> tuple[list[Json], str]:
    """As objects; and as text those whose arguments are no object, as when the answer's limit cut them off."""
    told: list[Json] = []
    written = ""
    for call in calls:
        arguments = _object(call.arguments)
        if arguments is None:
            written += f"{call.name} {call.arguments}"
        else:
            told.append({"id": call.id, "function": {"index": len(told), "name": call.name, "arguments": arguments}})
    return told, written


def _object(text: str) -> Json | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def logprob_list(tokens: Sequence[TokenLogprob]) -> list[Json]:
    """Each as in OpenAI's chats."""
    entries: list[Json] = chat_logprobs(tokens)["content"]
    return entries


def done_facts(finished: Finished, seconds: float, load_seconds: float) -> Json:
    """What the last object has. Durations in nanoseconds; the load's is all until a worker took the request."""
    figures = finished.statistics
    return {
        "done_reason": "length" if finished.reason in LENGTH else "stop",
        "total_duration": nanoseconds(seconds),
        "load_duration": nanoseconds(load_seconds),
        "prompt_eval_count": figures.prompt_tokens,
        "prompt_eval_duration": nanoseconds(figures.time_to_first_token_seconds - figures.queue_seconds),
        "eval_count": figures.predicted_tokens,
        "eval_duration": nanoseconds(figures.generation_seconds),
    }


def nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def rfc3339(seconds: float | None = None) -> str:
    """Of a time since the epoch; now, where none is given."""
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
