"""LM Studio's v0: OpenAI's completions, with statistics and facts about the model. Pure."""

from typing import Literal, NotRequired, TypeVar

from typing_extensions import TypedDict

from atelier import __version__
from atelier.errors import InvalidRequest
from atelier.generation_types import Finished, StopReason
from gateway.core.call import Account
from gateway.core.inference import RunningAnswer
from gateway.dialects.lmstudio.lmstudio_requests import UNLIMITED, V0ChatBody, V0CompletionBody
from gateway.dialects.openai.openai_replies import ChatChunk, ChatCompletion, TextChunk, TextCompletion
from gateway.dialects.route import Nullable
from gateway.fleet.snapshot import Instance

V0Body = TypeVar("V0Body", V0ChatBody, V0CompletionBody)

STOP_REASONS = {
    StopReason.EOS_FOUND: "eosFound",
    StopReason.STOP_STRING_FOUND: "stopStringFound",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "maxPredictedTokensReached",
    StopReason.CONTEXT_LENGTH_REACHED: "contextLengthReached",
    StopReason.USER_STOPPED: "userStopped",
    StopReason.MODEL_UNLOADED: "modelUnloaded",
    StopReason.TOOL_CALLS: "toolCalls",
}


class V0Stats(TypedDict):
    """Times are in seconds."""

    tokens_per_second: float
    time_to_first_token: float
    generation_time: float
    stop_reason: str
    prompt_tokens_count: int
    predicted_tokens_count: int
    total_tokens_count: int
    cached_tokens_count: int
    total_time_sec: float
    num_gpu_layers: int
    stop_string: NotRequired[Nullable[str]]
    draft_model: NotRequired[Nullable[str]]
    total_draft_tokens_count: NotRequired[Nullable[int]]
    accepted_draft_tokens_count: NotRequired[Nullable[int]]
    rejected_draft_tokens_count: NotRequired[Nullable[int]]
    ignored_draft_tokens_count: NotRequired[Nullable[int]]


class V0ModelInfo(TypedDict):
    arch: str
    quant: str
    format: Literal["gguf"]
    context_length: int


class V0Runtime(TypedDict):
    name: Literal["lm-atelier"]
    version: str
    supported_formats: list[str]


class V0Facts(TypedDict):
    stats: V0Stats
    model_info: V0ModelInfo
    runtime: V0Runtime


class LastChunkFacts(TypedDict):
    stats: NotRequired[Nullable[V0Stats]]
    model_info: NotRequired[Nullable[V0ModelInfo]]
    runtime: NotRequired[Nullable[V0Runtime]]


class V0Chat(ChatCompletion, V0Facts):
    pass


class V0ChatChunk(ChatChunk, LastChunkFacts):
    """The last chunk of a choice contains the statistics."""


class V0Completion(TextCompletion, V0Facts):
    pass


class V0CompletionChunk(TextChunk, LastChunkFacts):
    """The last chunk of a choice contains the statistics."""


def openai_body(body: V0Body) -> V0Body:
    """The body with OpenAI's way of setting no limit: no max_tokens instead of -1. Raises InvalidRequest."""
    if body.max_tokens == 0:
        raise InvalidRequest("max_tokens: must be at least 1, or -1 for no limit", param="max_tokens")
    return body.model_copy(update={"max_tokens": None}) if body.max_tokens == UNLIMITED else body


def continuing(body: V0ChatBody) -> V0ChatBody:
    """The body with a last message of the assistant's continued, as LM Studio does, unless the body says otherwise."""
    unset = body.continue_final_message is None and body.add_generation_prompt is None
    if not unset or body.messages[-1].role != "assistant":
        return body
    return body.model_copy(update={"continue_final_message": True})


def end_facts(account: Account, generation: RunningAnswer, finished: Finished) -> V0Facts:
    """The fields in addition to OpenAI's."""
    model, instance = generation.plan.model, generation.instance
    return {
        "stats": stats(finished, instance, account.seconds()),
        "model_info": {
            "arch": model.architecture,
            "quant": model.quantization,
            "format": "gguf",
            "context_length": instance.context_length,
        },
        "runtime": {"name": "lm-atelier", "version": __version__, "supported_formats": ["gguf"]},
    }


def stats(finished: Finished, instance: Instance, total_seconds: float) -> V0Stats:
    """LM Studio's four figures, and those of its chat page under names in the same style."""
    figures = finished.statistics
    values: V0Stats = {
        "tokens_per_second": figures.tokens_per_second,
        "time_to_first_token": figures.time_to_first_token_seconds,
        "generation_time": figures.generation_seconds,
        "stop_reason": STOP_REASONS.get(finished.reason, "failed"),
        "prompt_tokens_count": figures.prompt_tokens,
        "predicted_tokens_count": figures.predicted_tokens,
        "total_tokens_count": figures.prompt_tokens + figures.predicted_tokens,
        "cached_tokens_count": figures.cached_tokens,
        "total_time_sec": total_seconds,
        "num_gpu_layers": instance.gpu_layers,
    }
    if instance.draft_model:
        values["draft_model"] = instance.draft_model
    if instance.draft_model or figures.draft_tokens:
        # LM Studio counts draft tokens that it never checks as ignored; here all are checked.
        values["total_draft_tokens_count"] = figures.draft_tokens
        values["accepted_draft_tokens_count"] = figures.accepted_draft_tokens
        values["rejected_draft_tokens_count"] = figures.draft_tokens - figures.accepted_draft_tokens
        values["ignored_draft_tokens_count"] = 0
    if finished.stop_string is not None:
        values["stop_string"] = finished.stop_string
    return values
