"""Resolution of load settings: presets, the model's limit, and the effect of naming a draft model."""

from typing import Any

import pytest

from atelier.settings import BUILT_IN, MODEL_FILE, Layer, Load, Value
from atelier.settings.preset import Preset
from atelier.settings.resolution import draft_load, load_settings, preset_layers

DEFAULT = Value(4096, BUILT_IN)
DRAFT = {"draft_model": "small"}


def resolved(name: str, *layers: dict[str, Any], longest: int = 0) -> Value:
    """The setting, with layers that are named by their number."""
    return load_settings([Layer(str(number), values) for number, values in enumerate(layers)], longest).values[name]


@pytest.mark.parametrize(
    ("layers", "speculation"),
    [
        ([], Value("off", BUILT_IN)),
        ([{}, DRAFT], Value("draft_model", "1")),
        ([DRAFT, {"speculation": "off"}], Value("draft_model", "0")),
        ([{"speculation": "off"}, DRAFT], Value("off", "0")),
        ([{**DRAFT, "speculation": "prompt_lookup"}], Value("prompt_lookup", "0")),
        ([{"draft_model": None, "speculation": None}], Value("off", BUILT_IN)),
        ([{**DRAFT, "speculation": None}], Value("draft_model", "0")),
    ],
)
def test_naming_a_draft_model_selects_draft_speculation(layers: list[dict[str, Any]], speculation: Value) -> None:
    assert resolved("speculation", *layers) == speculation


@pytest.mark.parametrize(
    ("layers", "longest", "length"),
    [
        ([], 0, DEFAULT),
        ([], 8192, DEFAULT),
        ([], 2048, Value(2048, MODEL_FILE)),
        ([{"context_length": 9000}], 0, Value(9000, "0")),
        ([{"context_length": 2048}], 2048, Value(2048, "0")),
        ([{"context_length": 9000}], 2048, Value(2048, MODEL_FILE)),
        ([{"context_length": 9000}, {"context_length": 500}], 2048, Value(2048, MODEL_FILE)),
        ([{"context_length": 9000}], 64, Value(128, MODEL_FILE)),  # the minimum of every instance
    ],
)
def test_context_length_is_limited_to_the_trained_one(
    layers: list[dict[str, Any]], longest: int, length: Value
) -> None:
    assert resolved("context_length", *layers, longest=longest) == length


@pytest.mark.parametrize(
    "scaling", [{"rope_scaling": "yarn"}, {"rope_scaling": "linear"}, {"rope_freq_scale": 0.5}, {"rope_freq_base": 1e6}]
)
def test_only_scaled_rope_exceeds_the_trained_context_length(scaling: dict[str, Any]) -> None:
    assert resolved("context_length", {"context_length": 9000, **scaling}, longest=2048) == Value(9000, "0")
    assert resolved("context_length", {"context_length": 9000}, scaling, longest=2048) == Value(9000, "0")
    unscaled = {"context_length": 9000, "rope_scaling": "none", "yarn_original_context": 512}
    assert resolved("context_length", unscaled, longest=2048) == Value(2048, MODEL_FILE)


def test_a_draft_model_has_its_own_rope_frequencies() -> None:
    load = Load(context_length=9000, rope_scaling="yarn", rope_freq_scale=0.5, yarn_original_context=512, parallel=2)
    assert draft_load(load) == Load(context_length=9000, rope_scaling="yarn", parallel=2)


@pytest.mark.parametrize(
    ("layers", "keys"),
    [
        ([{"kv_type": "q8_0"}], Value(None, BUILT_IN)),
        ([{"kv_type": "q8_0", "k_type": "f16"}], Value("f16", "0")),
        ([{"parallel": 2}, {"k_type": "f16"}], Value("f16", "1")),
        ([{"kv_type": "q8_0"}, {"k_type": "f16"}], Value(None, BUILT_IN)),
        ([{"k_type": "f16"}, {"kv_type": "q8_0"}], Value("f16", "0")),
    ],
)
def test_one_type_of_the_cache_overrides_the_two_of_lower_layers(layers: list[dict[str, Any]], keys: Value) -> None:
    assert resolved("k_type", *layers) == keys


def test_a_named_preset_overrides_the_models_default_preset() -> None:
    chosen = Preset(name="fast", settings={"load": {"parallel": 2}, "inference": {"top_k": 1}})
    default = Preset(name="usual", settings={"load": {"parallel": 4}})
    assert preset_layers(chosen, default) == [
        Layer("preset fast", {"parallel": 2}),
        Layer("default preset usual", {"parallel": 4}),
    ]
    assert preset_layers(None, None) == []
