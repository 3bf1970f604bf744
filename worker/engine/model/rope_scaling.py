"""RoPE scaling: how the positions of a context longer than the trained one are mapped to those that were trained."""

from dataclasses import replace

from llama_cpp import llama_cpp as ll

from atelier.errors import LoadFailed
from atelier.settings.groups import Load
from atelier.settings.resolution import extends_context

_TYPES = {
    None: ll.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
    "none": ll.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": ll.LLAMA_ROPE_SCALING_TYPE_LINEAR,
    "yarn": ll.LLAMA_ROPE_SCALING_TYPE_YARN,
}


def check_rope(load: Load, trained_length: int, rope_type: int) -> None:
    """Raises LoadFailed for a context longer than the trained one, if the model has other positions than RoPE."""
    longer = 0 < trained_length < load.context_length
    if rope_type == ll.LLAMA_ROPE_TYPE_NONE and longer and extends_context(load):
        raise LoadFailed(
            f"This model does not use RoPE, so its context of {trained_length} tokens cannot be extended: leave out "
            "rope_scaling, rope_freq_scale and rope_freq_base.",
            param="rope_scaling",
        )


def with_rope_scale(load: Load, trained_length: int, trained_scale: float) -> Load:
    """With the frequency scale that makes the trained length reach over the context, unless one is set.

    `trained_scale`: the file's own, such as 0.25 for a model that was trained with a factor of 4.
    """
    scales = load.rope_scaling in ("linear", "yarn") and load.rope_freq_scale is None
    if not scales or not 0 < trained_length < load.context_length:
        return load
    return replace(load, rope_freq_scale=trained_scale * trained_length / load.context_length)


def set_rope(params: ll.llama_context_params, load: Load) -> None:
    """What the settings leave unset is the model's."""
    params.rope_scaling_type = _TYPES[load.rope_scaling]
    params.rope_freq_base = load.rope_freq_base or 0.0
    params.rope_freq_scale = load.rope_freq_scale or 0.0
    params.yarn_orig_ctx = load.yarn_original_context or 0
    for name in ("yarn_ext_factor", "yarn_beta_fast", "yarn_beta_slow"):
        if (value := getattr(load, name)) is not None:
            setattr(params, name, value)
