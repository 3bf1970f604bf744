"""LM Studio's configurations as settings, and settings as its configurations."""

from typing import Any

import pytest

from atelier.errors import InvalidRequest, UnsupportedField
from atelier.submission import Gbnf, JsonObject, JsonSchema, ToolChoice
from gateway.dialects.lmstudio_sdk.sdk_config import (
    config_fields,
    is_completion,
    load_fields,
    load_settings,
    prediction_config,
)
from gateway.dialects.lmstudio_sdk.sdk_frames import ConfigStack
from gateway.fleet.snapshot import Instance, Model

MODEL = Model(key="acme/tiny", layers=30)


def stack(fields: dict[str, Any], *more: tuple[str, dict[str, Any]]) -> ConfigStack:
    layers = [("apiOverride", fields), *more]
    return ConfigStack.model_validate(
        {
            "layers": [
                {"layerName": name, "config": {"fields": [{"key": key, "value": value} for key, value in of.items()]}}
                for name, of in layers
            ]
        }
    )


def settings(**fields: Any) -> dict[str, Any]:
    return dict(prediction_config(stack({f"llm.prediction.{key}": value for key, value in fields.items()})).settings)


def test_the_later_layer_wins() -> None:
    two = stack(
        {"llm.prediction.temperature": 0.1, "a": 1}, ("conversationSpecific", {"llm.prediction.temperature": 0.9})
    )
    assert config_fields(two) == {"llm.prediction.temperature": 0.9, "a": 1}


def test_a_completion_is_recognised_by_its_layer_whose_template_is_ignored() -> None:
    template = {"llm.prediction.promptTemplate": {"type": "jinja"}}
    assert is_completion(stack({}, ("completeModeFormatting", template)))
    assert prediction_config(stack({}, ("completeModeFormatting", template))).settings == {}
    with pytest.raises(UnsupportedField, match="promptTemplate"):
        prediction_config(stack(template))


def test_a_sampler_that_is_switched_off_is_off() -> None:
    off = {"checked": False, "value": 0.5}
    assert settings(topPSampling=off, minPSampling=off, repeatPenalty={"checked": True, "value": False}) == {
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
    }


@pytest.mark.parametrize(
    "value", [{"checked": False}, {"checked": True, "value": -1}, {"checked": True, "value": False}]
)
def test_an_unlimited_number_of_tokens_is_omitted(value: Any) -> None:
    assert settings(maxPredictedTokens=value) == {}


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert settings(topKSampling=40.0) == {"top_k": 40}


@pytest.mark.parametrize(
    ("value", "budget"), [({"checked": True, "value": 512}, 512), ({"checked": False, "value": 1024}, None)]
)
def test_the_budget_of_reasoning_has_its_own_key(value: Any, budget: int | None) -> None:
    assert settings(**{"reasoning.budgetTokens": value}).get("reasoning_budget") == budget


def test_reasoning_may_have_other_tags_or_not_be_parsed() -> None:
    marks = {"enabled": True, "startString": "<t>", "endString": "</t>"}
    assert settings(**{"reasoning.parsing": marks}) == {"reasoning_start": "<t>", "reasoning_end": "</t>"}
    assert settings(**{"reasoning.parsing": {**marks, "enabled": False}}) == {"reasoning_start": ""}


@pytest.mark.parametrize(
    ("value", "constraint"),
    [
        ({"type": "none"}, None),
        ({"type": "json"}, JsonObject()),
        ({"type": "json", "jsonSchema": {"type": "object"}}, JsonSchema('{"type":"object"}')),
        ({"type": "gbnf", "gbnfGrammar": 'root ::= "a"'}, Gbnf('root ::= "a"')),
    ],
)
def test_structured_output_becomes_a_constraint(value: Any, constraint: Any) -> None:
    assert prediction_config(stack({"llm.prediction.structured": value})).constraint == constraint


def test_tools_may_be_forced() -> None:
    tool = {"type": "function", "function": {"name": "add", "description": "Adds."}}
    use = {"type": "toolArray", "tools": [tool], "force": True}
    tools = prediction_config(stack({"llm.prediction.tools": use})).tools
    assert tools is not None
    assert (tools.choice, tools.tools[0].name, tools.tools[0].description) == (ToolChoice.REQUIRED, "add", "Adds.")
    assert prediction_config(stack({"llm.prediction.tools": {"type": "none"}})).tools is None


@pytest.mark.parametrize(
    ("ratio", "layers"), [("max", None), (1, None), ("off", 0), (0, 0), (0.5, 15), (0.01, 0), (None, None)]
)
def test_a_fraction_of_the_layers_becomes_their_number(ratio: Any, layers: int | None) -> None:
    settings = load_settings(stack({"llm.load.llama.acceleration.offloadRatio": ratio}), MODEL)
    assert settings.get("gpu_layers") == layers


@pytest.mark.parametrize("ratio", [-0.1, 1.1, True, "half", [], {}])
def test_an_invalid_fraction_is_rejected(ratio: Any) -> None:
    with pytest.raises(InvalidRequest, match="offloadRatio"):
        load_settings(stack({"llm.load.llama.acceleration.offloadRatio": ratio}), MODEL)


@pytest.mark.parametrize(
    ("ratio", "settings"),
    [
        ("max", {"cpu_moe": True}),
        (1, {"cpu_moe": True}),
        (0.5, {"cpu_moe_layers": 15}),
        ("off", {"cpu_moe_layers": 0}),
        (None, {}),
    ],
)
def test_a_fraction_of_layers_has_its_experts_in_main_memory(ratio: Any, settings: dict[str, Any]) -> None:
    assert load_settings(stack({"llm.load.numCpuExpertLayersRatio": ratio}), MODEL) == settings


def test_shares_of_gpus_are_a_tensor_split() -> None:
    split = {"strategy": "custom", "customRatio": [3, 1], "disabledGpus": [], "priority": []}
    assert load_settings(stack({"load.gpuSplitConfig": split}), MODEL) == {"tensor_split": [3, 1]}
    assert load_settings(stack({"load.gpuSplitConfig": {"strategy": "evenly"}}), MODEL) == {}


@pytest.mark.parametrize("split", [{"strategy": "priorityOrder", "priority": [1]}, {"disabledGpus": [0]}])
def test_other_ways_to_split_a_model_are_rejected(split: Any) -> None:
    with pytest.raises(UnsupportedField, match="main_gpu"):
        load_settings(stack({"load.gpuSplitConfig": split}), MODEL)


def test_embedding_models_have_the_same_settings_under_their_own_keys() -> None:
    assert load_settings(stack({"embedding.load.contextLength": 512}), MODEL) == {"context_length": 512}
    instance = Instance(id="a", model_key="acme/tiny", context_length=512)
    fields = load_fields(instance, Model(key="acme/tiny", embedding=True))["fields"]
    assert {"key": "embedding.load.contextLength", "value": 512} in fields
    assert not [field for field in fields if field["key"].startswith("llm.")]


def test_a_load_configuration_survives_a_round_trip() -> None:
    asked = {
        "llm.load.contextLength": 2048,
        "llm.load.llama.flashAttention": True,
        "llm.load.llama.tryMmap": False,
        "llm.load.llama.kCacheQuantizationType": {"checked": True, "value": "q8_0"},
        "llm.load.llama.vCacheQuantizationType": {"checked": True, "value": "q8_0"},
        "llm.load.llama.acceleration.offloadRatio": 0.5,
        "llm.load.seed": {"checked": True, "value": 7},
        "llm.load.numCpuExpertLayersRatio": 0.1,
        "llm.load.numExperts": 2,
        "llm.load.llama.ropeFrequencyBase": {"checked": True, "value": 1e6},
        "llm.load.llama.ropeFrequencyScale": {"checked": True, "value": 0.5},
    }
    instance = Instance(id="a", model_key=MODEL.key, load=load_settings(stack(asked), MODEL))
    assert {field["key"]: field["value"] for field in load_fields(instance, MODEL)["fields"]} == asked


@pytest.mark.parametrize(("older", "kv_type"), [(True, "f16"), (False, "f32")])
def test_the_older_field_for_the_cache_type_is_accepted(older: bool, kv_type: str) -> None:
    assert load_settings(stack({"llm.load.llama.useFp16ForKVCache": older}), MODEL) == {"kv_type": kv_type}
