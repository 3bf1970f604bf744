"""Ollama's replies to chats, prompts and embeddings, and its errors. Pure, except for the clock."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, NotRequired, cast

from typing_extensions import TypedDict

from atelier.errors import AtelierError
from atelier.generation_types import Finished, StopReason
from atelier.json_types import Json
from gateway.core.events import Completion, TokenLogprob, ToolCall
from gateway.dialects.openai.openai_logprobs import Logprob, chat_logprobs
from gateway.dialects.reply import rfc3339
from gateway.dialects.route import Nullable
from gateway.http.error_responses import ErrorForm
from gateway.tools.loop.toolset import read_arguments

LENGTH = frozenset({StopReason.MAX_PREDICTED_TOKENS_REACHED, StopReason.CONTEXT_LENGTH_REACHED})


class OllamaSaidFunction(TypedDict):
    index: int
    name: str
    arguments: Json


class OllamaSaidCall(TypedDict):
    id: str
    function: OllamaSaidFunction


class OllamaSaidMessage(TypedDict):
    role: Literal["assistant"]
    content: str
    thinking: NotRequired[Nullable[str]]
    tool_calls: NotRequired[Nullable[list[OllamaSaidCall]]]


class OllamaChatPart(TypedDict):
    message: OllamaSaidMessage


class OllamaGenerationPart(TypedDict):
    response: str
    thinking: NotRequired[Nullable[str]]


class OllamaFacts(TypedDict):
    """All but `logprobs` are in the last object only. Durations are in nanoseconds."""

    done_reason: NotRequired[Nullable[Literal["stop", "length", "load", "unload"]]]
    logprobs: NotRequired[Nullable[list[Logprob]]]
    total_duration: NotRequired[Nullable[int]]
    load_duration: NotRequired[Nullable[int]]
    prompt_eval_count: NotRequired[Nullable[int]]
    prompt_eval_duration: NotRequired[Nullable[int]]
    eval_count: NotRequired[Nullable[int]]
    eval_duration: NotRequired[Nullable[int]]


class OllamaHead(TypedDict):
    model: str
    created_at: str
    done: bool


class OllamaChat(OllamaHead, OllamaChatPart, OllamaFacts):
    pass


class OllamaGeneration(OllamaHead, OllamaGenerationPart, OllamaFacts):
    pass


class OllamaVectors(TypedDict):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaVector(TypedDict):
    embedding: list[float]


class OllamaVersion(TypedDict):
    version: str
    atelier: str


OllamaPart = OllamaChatPart | OllamaGenerationPart
PartBuilder = Callable[[str, str, Sequence[OllamaSaidCall]], OllamaPart]
"""Puts text, thinking and tool calls into a chat's message, or into a generation's response."""


def chat_part(text: str, thinking: str = "", calls: Sequence[OllamaSaidCall] = ()) -> OllamaChatPart:
    message: OllamaSaidMessage = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = list(calls)
    return {"message": message}


def generate_part(text: str, thinking: str = "", calls: Sequence[OllamaSaidCall] = ()) -> OllamaGenerationPart:
    """Without tool calls: a prompt cannot offer tools."""
    return {"response": text, "thinking": thinking} if thinking else {"response": text}


def reply_object(model: str, part: OllamaPart, facts: OllamaFacts, *, done: bool) -> OllamaChat | OllamaGeneration:
    reply = {"model": model, "created_at": rfc3339(time.time(), "microseconds"), **part, "done": done, **facts}
    return cast(OllamaChat | OllamaGeneration, reply)


def whole_part(part: PartBuilder, completion: Completion, *, thinking: bool) -> OllamaPart:
    calls, text = split_calls(completion.tool_calls)
    return part(completion.text + text, completion.reasoning if thinking else "", calls)


def split_calls(calls: Sequence[ToolCall]) -> tuple[list[OllamaSaidCall], str]:
    """The calls whose arguments are an object, and the text of the others, as when max_tokens cut them off."""
    objects: list[OllamaSaidCall] = []
    text = ""
    for call in calls:
        arguments = read_arguments(call.arguments) if call.arguments else None
        if arguments is None:
            text += f"{call.name} {call.arguments}"
        else:
            function: OllamaSaidFunction = {"index": len(objects), "name": call.name, "arguments": arguments}
            objects.append({"id": call.id, "function": function})
    return objects, text


def logprob_list(tokens: Sequence[TokenLogprob]) -> list[Logprob]:
    """In the form of OpenAI's chats."""
    entries: list[Logprob] = chat_logprobs(tokens)["content"]
    return entries


def done_facts(finished: Finished, seconds: float, load_seconds: float) -> OllamaFacts:
    """The facts of the last object. `load_seconds`: until a worker accepted the request."""
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


ERROR_SCHEMA: Json = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def error_body(error: AtelierError, request_id: str) -> Json:
    """One sentence. The request's id is in the headers only."""
    return {"error": error.message}


FORM = ErrorForm(error_body, lambda body: body + b"\n", "OllamaError", ERROR_SCHEMA)
