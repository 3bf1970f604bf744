"""The response object: its type, and what builds it. Pure."""

import time
from collections.abc import Sequence
from typing import Annotated, Literal, cast

from pydantic import Field
from typing_extensions import TypedDict

from atelier.errors import AtelierError, InvalidRequest
from atelier.generation_types import Finished, StopReason
from atelier.json_types import Json
from gateway.core.call_plan import Effective
from gateway.core.inference import RunningAnswer
from gateway.dialects.responses.response_items import OutputItem
from gateway.dialects.responses.response_turn import Turn, choice_object, tool_objects
from gateway.dialects.responses.responses_requests import ResponseBody

CUT_OFF = {StopReason.MAX_PREDICTED_TOKENS_REACHED, StopReason.CONTEXT_LENGTH_REACHED}
ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
UNFINISHED = ("queued", "in_progress")


class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensReasoning(TypedDict):
    reasoning_tokens: int


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensReasoning
    total_tokens: int


class ResponseError(TypedDict):
    code: str
    message: str
    type: str
    param: str | None


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


class ReasoningEcho(TypedDict):
    effort: str | None
    summary: str | None


class ResponseObject(TypedDict):
    """The response, and what it repeats of its request."""

    id: str
    object: Literal["response"]
    created_at: int
    status: ResponseStatus
    background: bool
    completed_at: int | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    store: bool
    temperature: float | None
    top_p: float | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningEcho
    safety_identifier: str | None
    service_tier: Literal["default"]
    text: Annotated[Json, Field(description="The format and the verbosity.")]
    tool_choice: str | Json
    tools: list[Json]
    top_logprobs: int
    truncation: Literal["auto", "disabled"]
    user: str | None


def unfinished_response(
    turn: Turn, model: str, status: ResponseStatus, settings: Effective | None = None
) -> ResponseObject:
    return _response(turn, model, settings, status=status, output=[])


def finished_response(turn: Turn, generation: RunningAnswer, output: Sequence[Json]) -> ResponseObject:
    """Of a generation whose only choice has ended."""
    status, details = ending(generation.ends[0])
    return _response(
        turn,
        generation.plan.name,
        generation.settings,
        status=status,
        output=output,
        incomplete_details=details,
        usage=usage(generation),
    )


def failed_response(turn: Turn, model: str, error: AtelierError, output: Sequence[Json] = ()) -> ResponseObject:
    return _response(turn, model, None, status="failed", output=output, error=error_object(error))


def cancelled_response(turn: Turn, model: str) -> ResponseObject:
    return _response(turn, model, None, status="cancelled", output=[])


def ending(finished: Finished) -> tuple[Literal["completed", "incomplete"], IncompleteDetails | None]:
    """The status, and the incomplete_details."""
    if finished.reason in CUT_OFF:
        return "incomplete", {"reason": "max_output_tokens"}
    return "completed", None


def error_object(error: AtelierError) -> ResponseError:
    """OpenAI's code, and LM Atelier's finer one as the type."""
    code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
    return {"code": code, "message": error.message, "type": error.code, "param": error.param}


def usage(generation: RunningAnswer) -> ResponseUsage:
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": generation.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": generation.reasoning_tokens},
        "total_tokens": prompt + completion,
    }


def _response(
    turn: Turn,
    model: str,
    settings: Effective | None,
    *,
    status: ResponseStatus,
    output: Sequence[Json],
    error: ResponseError | None = None,
    incomplete_details: IncompleteDetails | None = None,
    usage: ResponseUsage | None = None,
) -> ResponseObject:
    body, reasoning = turn.body, turn.body.reasoning
    return {
        "id": turn.id,
        "object": "response",
        "created_at": turn.created_at,
        "status": status,
        "background": bool(body.background),
        "completed_at": int(time.time()) if status == "completed" else None,
        "error": error,
        "incomplete_details": incomplete_details,
        "model": model,
        "output": cast(list[OutputItem], output),
        "usage": usage,
        "store": turn.stored,
        "temperature": _setting("temperature", body, settings),
        "top_p": _setting("top_p", body, settings),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": (reasoning.summary or reasoning.generate_summary) if reasoning else None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "text": _text(body),
        "tool_choice": choice_object(body),
        "tools": tool_objects(body),
        "top_logprobs": body.top_logprobs or 0,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }


def _setting(name: str, body: ResponseBody, settings: Effective | None) -> float | None:
    """The effective value, or the requested one until that is known."""
    values = settings.values if settings is not None else {}
    return cast("float | None", values[name].value if name in values else getattr(body, name))


def _text(body: ResponseBody) -> Json:
    requested = body.text.format if body.text else None
    format: Json = {"type": requested.type if requested else "text"}
    if requested is not None and requested.type == "json_schema":
        format |= {
            "name": requested.name or "answer",
            "description": requested.description,
            "schema": requested.schema_,
            "strict": requested.strict,
        }
    verbosity = body.text.verbosity if body.text else None
    return {"format": format, "verbosity": verbosity or "medium"}
