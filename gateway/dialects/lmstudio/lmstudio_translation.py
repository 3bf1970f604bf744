"""LM Studio's shapes to the core's and back. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from atelier import __version__
from atelier.errors import InvalidRequest, UnsupportedField
from atelier.generation_types import Statistics, StopReason
from atelier.json_types import Json
from atelier.settings import TABLE
from gateway.core.answer import Answering
from gateway.core.call import Account, Call
from gateway.core.events import Completion, Finished
from gateway.dialects.lmstudio.lmstudio_reply_types import V1Model, V1Quantization
from gateway.dialects.lmstudio.lmstudio_requests import LOAD_FIELDS, UNLIMITED, LoadBody, V0ChatBody, V0CompletionBody
from gateway.dialects.openai.openai_calls import chat_call, completion_call
from gateway.dialects.openai.openai_model_list import capability_names, type_name
from gateway.fleet.snapshot import LOADED, Instance, Model, Snapshot
from protos import registry_pb2 as pb

STOP_REASONS = {
    StopReason.EOS_FOUND: "eosFound",
    StopReason.STOP_STRING_FOUND: "stopStringFound",
    StopReason.MAX_PREDICTED_TOKENS_REACHED: "maxPredictedTokensReached",
    StopReason.CONTEXT_LENGTH_REACHED: "contextLengthReached",
    StopReason.USER_STOPPED: "userStopped",
    StopReason.MODEL_UNLOADED: "modelUnloaded",
    StopReason.TOOL_CALLS: "toolCalls",
}
RUNTIME = {"name": "lm-atelier", "version": __version__, "supported_formats": ["gguf"]}

# The part of an instance's settings that LM Studio shows, by its names.
SHOWN_LOAD = ("context_length", "batch_size", "parallel", "flash_attention", "offload_kv")

V0Body = TypeVar("V0Body", V0ChatBody, V0CompletionBody)


def v0_chat_call(body: V0ChatBody) -> Call:
    return chat_call(with_limit(body))


def v0_completion_call(body: V0CompletionBody) -> Call:
    return completion_call(with_limit(body))


def with_limit(body: V0Body) -> V0Body:
    """As OpenAI has it, where no limit is no max_tokens rather than -1."""
    if body.max_tokens == 0:
        raise InvalidRequest("max_tokens: must be at least 1, or -1 for no limit", param="max_tokens")
    return body.model_copy(update={"max_tokens": None}) if body.max_tokens == UNLIMITED else body


def end_facts(generation: Answering, account: Account, finished: Finished) -> Json:
    """What v0 adds to OpenAI's shape."""
    return {
        "stats": stats(finished, generation.instance, account.seconds()),
        "model_info": model_info(generation.plan.model, generation.instance),
        "runtime": RUNTIME,
    }


def stats(finished: Finished, instance: Instance, total_seconds: float) -> Json:
    """LM Studio's four figures, and those of its chat page under names in the same style."""
    figures = finished.statistics
    values: Json = {
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
    draft_model = instance.load.get("draft_model")
    if draft_model:
        values["draft_model"] = draft_model
    if draft_model or figures.draft_tokens:
        values |= draft_stats(figures)
    return values if finished.stop_string is None else {**values, "stop_string": finished.stop_string}


def draft_stats(figures: Statistics) -> Json:
    """As LM Studio tells them of a draft model. Those that it never checks it calls ignored; here all are checked."""
    return {
        "total_draft_tokens_count": figures.draft_tokens,
        "accepted_draft_tokens_count": figures.accepted_draft_tokens,
        "rejected_draft_tokens_count": figures.draft_tokens - figures.accepted_draft_tokens,
        "ignored_draft_tokens_count": 0,
    }


def model_info(model: Model, instance: Instance) -> Json:
    return {
        "arch": model.architecture,
        "quant": model.quantization,
        "format": "gguf",
        "context_length": instance.context_length,
    }


def first_end(completions: list[Completion]) -> Finished:
    return completions[0].finished


def v0_model(model: Model, snapshot: Snapshot) -> Json:
    instances = [each for each in snapshot.instances_of(model.key) if each.state in LOADED]
    entry: Json = {
        "id": model.key,
        "object": "model",
        "type": type_name(model),
        "publisher": model.publisher,
        "arch": model.architecture,
        "compatibility_type": "gguf",
        "quantization": model.quantization,
        "state": "loaded" if instances else "not-loaded",
        "max_context_length": model.max_context_length,
        "capabilities": capability_names(model),
    }
    return {**entry, "loaded_context_length": instances[0].context_length} if instances else entry


def v1_model(model: Model, snapshot: Snapshot) -> V1Model:
    return {
        "type": "embedding" if model.embedding else "llm",
        "publisher": model.publisher,
        "key": model.key,
        "display_name": model.display_name or model.key,
        "architecture": model.architecture,
        "quantization": quantization(model),
        "size_bytes": model.size_bytes,
        "params_string": params_string(model.parameters),
        "loaded_instances": [
            {"id": each.id, "config": load_config(each, SHOWN_LOAD)}
            for each in snapshot.instances_of(model.key)
            if each.state in LOADED
        ],
        "max_context_length": model.max_context_length,
        "format": "gguf",
        "capabilities": {"vision": model.made_for_vision, "trained_for_tool_use": model.made_for_tools},
        "layers": model.layers,
    }


def quantization(model: Model) -> V1Quantization | None:
    """None where the file's name and header tell nothing of it."""
    if not model.quantization:
        return None
    return {"name": model.quantization, "bits_per_weight": round(model.bits_per_weight, 2)}


def params_string(parameters: int) -> str:
    """134515008 -> "135M", 7241732096 -> "7.2B"."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            count = parameters / size
            return f"{count:.1f}{unit}".replace(".0", "") if count < 100 else f"{count:.0f}{unit}"
    return str(parameters)


def load_config(instance: Instance, names: tuple[str, ...] = tuple(TABLE["load"])) -> Json:
    """The instance's load settings by LM Studio's names; unset ones are left out."""
    values: Mapping[str, Any] = {**instance.load, **_as_started(instance)}
    return {TABLE["load"][name].facts.lmstudio: values[name] for name in names if name in values}


def _as_started(instance: Instance) -> Json:
    """What the worker made of the settings, which may be less than was asked for."""
    known = {"context_length": instance.context_length, "parallel": instance.parallel}
    return {name: value for name, value in known.items() if value}


def load_settings(body: LoadBody) -> Json:
    """The load settings that the body sets, by the table's names."""
    if body.num_experts is not None:
        raise UnsupportedField("num_experts: not supported yet; leave it out.", param="num_experts")
    values = {setting: getattr(body, field) for field, setting in LOAD_FIELDS.items()}
    return {name: value for name, value in values.items() if value is not None}


def load_reply(instance: Instance, model: Model, *, echo: bool) -> Json:
    reply: Json = {
        "type": "embedding" if model.embedding else "llm",
        "instance_id": instance.id,
        "load_time_seconds": instance.load_seconds,
        "status": "loaded",
    }
    return {**reply, "load_config": load_config(instance)} if echo else reply


def estimate_reply(model: Model, estimate: pb.MemoryEstimate) -> Json:
    parts = {"weights": estimate.weights, "kv_cache": estimate.kv_cache, "compute": estimate.compute}
    return {"model": model.key, "status": "estimated", "memory_bytes": {**parts, "total": sum(parts.values())}}
