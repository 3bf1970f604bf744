"""From a context longer than the trained one to llama.cpp's RoPE parameters."""

from typing import Any

import pytest
from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed
from atelier.settings.groups import Load
from worker.engine.model.context import generation_params
from worker.engine.model.rope_scaling import check_rope, with_rope_scale

TRAINED = 8192
ROPE, NO_ROPE = ll.LLAMA_ROPE_TYPE_NEOX, ll.LLAMA_ROPE_TYPE_NONE


@pytest.mark.parametrize(
    ("load", "file_scale", "scale"),
    [
        ({"rope_scaling": "yarn", "context_length": 4 * TRAINED}, 1.0, 0.25),
        ({"rope_scaling": "linear", "context_length": 2 * TRAINED}, 1.0, 0.5),
        ({"rope_scaling": "yarn", "context_length": 2 * TRAINED}, 0.25, 0.125),  # the file has a factor of 4 itself
        ({"rope_scaling": "yarn", "context_length": 2 * TRAINED, "rope_freq_scale": 0.1}, 1.0, 0.1),
        ({"rope_scaling": "yarn", "context_length": TRAINED}, 1.0, None),
        ({"rope_scaling": "none", "context_length": 2 * TRAINED}, 1.0, None),
        ({"rope_freq_base": 1e6, "context_length": 2 * TRAINED}, 1.0, None),
    ],
)
def test_the_frequency_scale_follows_the_context_length(
    load: dict[str, Any], file_scale: float, scale: float | None
) -> None:
    assert with_rope_scale(Load(**load), TRAINED, file_scale).rope_freq_scale == scale


def test_a_model_of_unknown_length_is_not_scaled() -> None:
    assert with_rope_scale(Load(rope_scaling="yarn"), 0, 1.0) == Load(rope_scaling="yarn")


def test_rope_settings_reach_llama_cpp() -> None:
    load = Load(
        rope_scaling="yarn",
        rope_freq_scale=0.25,
        rope_freq_base=1e6,
        yarn_original_context=512,
        yarn_ext_factor=0.5,
        yarn_beta_fast=16.0,
        yarn_beta_slow=2.0,
    )
    params = generation_params(load, on_gpu=False)
    assert params.rope_scaling_type == ll.LLAMA_ROPE_SCALING_TYPE_YARN
    assert (params.rope_freq_scale, params.rope_freq_base, params.yarn_orig_ctx) == (0.25, 1e6, 512)
    assert (params.yarn_ext_factor, params.yarn_beta_fast, params.yarn_beta_slow) == (0.5, 16.0, 2.0)


def test_unset_rope_settings_are_the_models() -> None:
    params, default = generation_params(Load(), on_gpu=False), ll.llama_context_default_params()
    for name in ("rope_scaling_type", "rope_freq_scale", "rope_freq_base", "yarn_orig_ctx", "yarn_ext_factor"):
        assert getattr(params, name) == getattr(default, name)


def test_a_model_without_rope_cannot_be_extended() -> None:
    longer = Load(context_length=2 * TRAINED, rope_scaling="yarn")
    with pytest.raises(LoadFailed, match="does not use RoPE"):
        check_rope(longer, TRAINED, NO_ROPE)
    check_rope(longer, TRAINED, ROPE)
    check_rope(Load(context_length=TRAINED, rope_scaling="yarn"), TRAINED, NO_ROPE)
