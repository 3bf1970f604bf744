"""LM Studio's configurations (fields by key) as settings, and settings as configurations. Pure.

    {"layers": [{"layerName": "apiOverride",
                 "config": {"fields": [{"key": "llm.prediction.temperature", "value": 0.1}]}}]}

Where two layers set one field, the later one wins. Keys and value wrappers are those of preset files
(atelier/settings/lmstudio_preset.py); this module adds the keys that do not correspond to one setting.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.json_types import Json, json_text
from atelier.settings.lmstudio_preset import BY_KEY, TEMPLATE, field_value, plain_value, with_cache_types
from atelier.settings.preset import check_settings
from atelier.settings.settings_table import TABLE, Group, Setting
from atelier.submission import Constraint, Gbnf, JsonObject, JsonSchema, Tool, ToolChoice, Tools
from gateway.core.call_plan import Effective
from gateway.dialects.lmstudio.lmstudio_model_list import started_settings
from gateway.dialects.lmstudio_sdk.sdk_errors import M, parsed
from gateway.dialects.lmstudio_sdk.sdk_frames import (
    ConfigStack,
    OfferedTool,
    ReasoningParsing,
    Structured,
    ToolFunction,
    ToolUse,
)
from gateway.fleet.snapshot import Instance, Model

COMPLETION_LAYER = "completeModeFormatting"  # its presence requests a text completion

STRUCTURED = "llm.prediction.structured"
TOOLS = "llm.prediction.tools"
PROMPT_TEMPLATE = "llm.prediction.promptTemplate"
REASONING = "llm.prediction.reasoning.parsing"
DRAFT_MODEL = "llm.prediction.speculativeDecoding.draftModel"
TOOL_STOPS = "llm.prediction.toolCallStopStrings"

OFFLOAD_RATIO = "llm.load.llama.acceleration.offloadRatio"
GPU_SPLIT = "load.gpuSplitConfig"
OLDER_KV_TYPE = "llm.load.llama.useFp16ForKVCache"
CPU_EXPERTS = "llm.load.numCpuExpertLayersRatio"
LLM_LOAD, EMBEDDING_LOAD = "llm.load.", "embedding.load."

# The values that disable a sampler.
OFF = {"top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
UNLIMITED = -1
KNOWN_KV_TYPES = frozenset({"f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"})  # to clients


@dataclass(frozen=True, slots=True)
class PredictionConfig:
    """A prediction's configuration in the core's terms. `settings`: by setting name."""

    settings: Json
    constraint: Constraint | None
    tools: Tools | None
    draft_model: str | None


def is_completion(stack: ConfigStack) -> bool:
    return any(layer.layer_name == COMPLETION_LAYER for layer in stack.layers)


def config_fields(stack: ConfigStack) -> Json:
    """The merged fields of all layers but the completion layer, whose template only marks a completion."""
    layers = (layer for layer in stack.layers if layer.layer_name != COMPLETION_LAYER)
    return {field.key: field.value for layer in layers for field in layer.config.fields}


def prediction_config(stack: ConfigStack) -> PredictionConfig:
    """Raises InvalidRequest, or UnsupportedField for a known key without support."""
    fields = config_fields(stack)
    for key, why in ((PROMPT_TEMPLATE, "templates come from presets"), (TOOL_STOPS, "use stopStrings")):
        if fields.get(key):
            raise UnsupportedField(f"{key}: not supported in requests; {why}.", param=key)
    draft_model = fields.get(DRAFT_MODEL)
    if draft_model is not None and not isinstance(draft_model, str):
        raise InvalidRequest(f"{DRAFT_MODEL}: must be a string", param=DRAFT_MODEL)
    return PredictionConfig(prediction_settings(fields), constraint(fields), tools(fields), draft_model or None)


def prediction_settings(fields: Json) -> Json:
    """Prompt and inference settings, by setting name."""
    groups = _settings(fields, ("prompt", "inference"))
    prompt = {**groups.get("prompt", {}), **reasoning_markers(fields)}
    checked = _checked({"prompt": prompt, "inference": groups.get("inference", {})})
    return {**checked.get("prompt", {}), **checked.get("inference", {})}


def reasoning_markers(fields: Json) -> Json:
    if fields.get(REASONING) is None:
        return {}
    parsing = _value(ReasoningParsing, fields, REASONING)
    if not parsing.enabled:
        return {"reasoning_start": ""}
    return {"reasoning_start": parsing.start_string, "reasoning_end": parsing.end_string}


def constraint(fields: Json) -> Constraint | None:
    if fields.get(STRUCTURED) is None:
        return None
    structured = _value(Structured, fields, STRUCTURED)
    if structured.type == "none":
        return None
    if structured.type == "gbnf":
        if structured.gbnf_grammar is None:
            raise InvalidRequest(f"{STRUCTURED}: gbnfGrammar is required", param=STRUCTURED)
        return Gbnf(structured.gbnf_grammar)
    if structured.json_schema is None:
        return JsonObject()
    return JsonSchema(json_text(structured.json_schema))


def tools(fields: Json) -> Tools | None:
    if fields.get(TOOLS) is None:
        return None
    use = _value(ToolUse, fields, TOOLS)
    if use.type == "none" or not use.tools:
        return None
    return Tools(tools_of(use.tools), ToolChoice.REQUIRED if use.force else ToolChoice.AUTO)


def tools_of(entries: Iterable[OfferedTool]) -> list[Tool]:
    return [_tool(entry.function) for entry in entries]


def _tool(function: ToolFunction) -> Tool:
    description = function.description or ""
    if function.parameters is None:
        return Tool(function.name, description)
    return Tool(function.name, description, function.parameters)


def load_settings(stack: ConfigStack, model: Model) -> Json:
    """By setting name. Raises InvalidRequest, or UnsupportedField for a known key without support."""
    fields = {_as_llm(key): value for key, value in config_fields(stack).items()}
    values = {**_split(fields.get(GPU_SPLIT)), **_older_kv_type(fields), **_settings(fields, ("load",)).get("load", {})}
    if (layers := gpu_layers(fields.get(OFFLOAD_RATIO), model)) is not None:
        values["gpu_layers"] = layers
    values |= cpu_experts(fields.get(CPU_EXPERTS), model)
    return dict(_checked({"load": values}).get("load", {}))


def gpu_layers(ratio: object, model: Model) -> int | None:
    """How many of the model's layers the offload ratio puts on GPUs; None: all."""
    return None if ratio is None else _layers(ratio, OFFLOAD_RATIO, model)


def cpu_experts(ratio: object, model: Model) -> Json:
    """The settings for this share of the layers, from the first, whose experts stay in main memory."""
    if ratio is None:
        return {}
    layers = _layers(ratio, CPU_EXPERTS, model)
    return {"cpu_moe": True} if layers is None else {"cpu_moe_layers": layers}


def _layers(ratio: object, key: str, model: Model) -> int | None:
    """A share of the model's layers as their number; None: all."""
    if ratio == "max":
        return None
    if ratio == "off":
        return 0
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise InvalidRequest(f'{key}: must be "max", "off" or between 0 and 1', param=key)
    if not model.layers and 0 < ratio < 1:
        raise InvalidRequest(f"{key}: the model's file does not say how many layers it has", param=key)
    return None if ratio == 1 else round(ratio * model.layers)


def load_fields(instance: Instance, model: Model) -> Json:
    """The instance's load configuration."""
    values: Json = with_cache_types({**instance.load, **started_settings(instance)})
    for name in ("k_type", "v_type"):
        if values.get(name) not in KNOWN_KV_TYPES:
            values.pop(name, None)
    fields: list[Json] = [
        {"key": row.facts.preset_key, "value": field_value(name, values[name])}
        for name, row in TABLE["load"].items()
        if row.facts.preset_key and name in values
    ]
    if values.get("cpu_moe") or values.get("cpu_moe_layers"):
        layers = None if values.get("cpu_moe") else values["cpu_moe_layers"]
        fields.append({"key": CPU_EXPERTS, "value": _ratio(layers, model)})
    fields.append({"key": OFFLOAD_RATIO, "value": _ratio(values.get("gpu_layers"), model)})
    if model.embedding:
        fields = [{**field, "key": field["key"].replace(LLM_LOAD, EMBEDDING_LOAD)} for field in fields]
    return {"fields": fields}


def prediction_fields(settings: Effective | None, requested: Json) -> Json:
    """The effective settings, and the structured output as in the requested fields."""
    groups = (settings.prompt.values, settings.inference.values) if settings else ()
    fields = [
        {"key": BY_NAME[name], "value": field_value(name, value.value)}
        for values in groups
        for name, value in values.items()
        if name in BY_NAME and name != TEMPLATE and value.value not in (None, {}, [])
    ]
    if requested.get(STRUCTURED) is not None:
        fields.append({"key": STRUCTURED, "value": requested[STRUCTURED]})
    return {"fields": fields}


BY_NAME = {row.name: key for key, row in BY_KEY.items()}


def _settings(fields: Json, groups: tuple[Group, ...]) -> dict[Group, Json]:
    """The fields that correspond to one setting each, by group and setting name."""
    found: dict[Group, Json] = {}
    for key, value in fields.items():
        row = BY_KEY.get(key)
        if row is None or row.group not in groups:
            continue
        plain = OFF.get(row.name) if _is_off(value) else plain_value(row, value)
        if plain is not None and (row.name, plain) != ("max_tokens", UNLIMITED):
            found.setdefault(row.group, {})[row.name] = _whole(row, plain)
    return found


def _whole(row: Setting, value: object) -> object:
    """Some clients write integers as floats: 40.0 for 40."""
    counts = row.type is int or int in get_args(row.type)
    return int(value) if counts and isinstance(value, float) and value.is_integer() else value


def _checked(groups: Mapping[Group, Json]) -> dict[Group, Json]:
    """Raises InvalidRequest, which names the field by the client's key."""
    try:
        return check_settings(groups)
    except InvalidRequest as error:
        group, _, rest = (error.param or "").partition(".")
        key = BY_NAME.get(rest.partition(".")[0])
        if key is None:
            raise
        message = error.message.removeprefix(f"{group}.{rest}")
        raise InvalidRequest(f"{key}{message}", param=key) from None


def _is_off(value: object) -> bool:
    """Whether the client disables the setting: {checked: false}, or {checked: true, value: false}."""
    return isinstance(value, Mapping) and (value.get("checked") is False or value.get("value") is False)


def _older_kv_type(fields: Json) -> Json:
    """The one type of keys and values, of clients from before they had one each."""
    older = fields.get(OLDER_KV_TYPE)
    return {} if not isinstance(older, bool) else {"kv_type": "f16" if older else "f32"}


def _split(split: object) -> Json:
    """Shares of the GPUs, in their order, where the client sets some."""
    if split is None:
        return {}
    if not isinstance(split, Mapping):
        raise InvalidRequest(f"{GPU_SPLIT}: must be an object", param=GPU_SPLIT)
    strategy = split.get("strategy", "evenly")
    if strategy not in ("evenly", "custom") or split.get("disabledGpus"):
        raise UnsupportedField(
            f"{GPU_SPLIT}: only the strategies evenly and custom are supported, without disabledGpus; set device, "
            "split_mode and main_gpu among a preset's load settings instead.",
            param=GPU_SPLIT,
        )
    return {"tensor_split": split.get("customRatio", [])} if strategy == "custom" else {}


def _ratio(layers: int | None, model: Model) -> float | str:
    if layers is None or (model.layers and layers >= model.layers):
        return "max"
    return layers / model.layers if layers and model.layers else "off"


def _as_llm(key: str) -> str:
    return LLM_LOAD + key.removeprefix(EMBEDDING_LOAD) if key.startswith(EMBEDDING_LOAD) else key


def _value(kind: type[M], fields: Json, key: str) -> M:
    """The field's validated value. Raises InvalidRequest, whose message begins with the field's key."""
    try:
        return parsed(kind, fields[key])
    except InvalidRequest as error:
        raise InvalidRequest(f"{key}: {error.message}", param=key) from None
