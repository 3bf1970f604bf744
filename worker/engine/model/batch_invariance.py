"""Batch invariance: whether results depend on how tokens are grouped into llama_decode calls, and whether they may.

By default they may, as in llama.cpp's own server: tokens are grouped for speed. With the setting `reproducible` a text
is the same alone and in company. On a CPU nothing needs to be separated for that: every row of a matrix product is
computed by itself. Two things break it.

1. Flash attention over keys and values of one type has three code paths with different rounding: for
   64 and more tokens of a sequence, for one token of a lone sequence over 512 and more cells, and for
   the rest. With keys of another type than the values the first two are never taken (ggml-cpu/ops.cpp,
   flash_attn_ext). bfloat16 is as large as float16.
2. Matrices that are not quantised are multiplied by another kernel for one token than for several
   (ggml-cpu/llamafile/sgemm.cpp): F16 weights, LoRA adapters, and without flash attention the cache itself.

GPUs choose kernels by the number of tokens: there grouping always matters.
"""

from dataclasses import dataclass

from atelier.settings.groups import Load

_UNQUANTISED = {"0", "1", "32"}  # general.file_type of F32, F16 and BF16
_SPLIT_PATHS = {"f16", "f32"}  # types for which flash attention has more than one path


@dataclass(frozen=True, slots=True)
class Grouping:
    """What may be grouped into calls freely: `slices` of prompts, and with them the next tokens that `decode` computes.

    Where it may not, a group of tokens is a part of the prompt's or the text's definition.
    """

    slices: bool
    decode: bool


FREE = Grouping(slices=True, decode=True)
SEPARATE = Grouping(slices=False, decode=False)


def cache_types(load: Load, *, on_gpu: bool) -> tuple[str, str]:
    """The types of the cache's keys and of its values: two where one type would break batch invariance."""
    keys, values = load.k_type or load.kv_type, load.v_type or load.kv_type
    if load.reproducible and keys == values == "f16" and not on_gpu and load.flash_attention is not False:
        return "bf16", values
    return keys, values


def grouping(load: Load, file_type: str, *, on_gpu: bool, adapted: bool = False) -> Grouping:
    """What these settings allow, for a file of this general.file_type, with LoRA adapters or without."""
    if not load.reproducible:
        return FREE
    keys, values = cache_types(load, on_gpu=on_gpu)
    one_path = load.flash_attention is False or keys != values
    slices = not on_gpu and (one_path or values not in _SPLIT_PATHS)
    one_kernel = load.flash_attention is not False and not adapted and file_type not in _UNQUANTISED
    return Grouping(slices, decode=slices and one_kernel)
