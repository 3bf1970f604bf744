r"""Tensors that are placed by name: the load settings override_tensor, cpu_moe and cpu_moe_layers. Pure.

    blk\.(1[0-9]|2[0-9])\.ffn_.*_exps=cpu

A pattern is searched in tensor names, by llama.cpp (std::regex, ECMAScript) and for estimates (re). It is limited to
what both read alike and search quickly: characters, sets, alternatives, and few repetitions, which repeat no group.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atelier.errors import InvalidRequest
from atelier.settings.groups import Load

CPU = "cpu"
MOST_REPETITIONS = 4  # of one pattern: the time of a search grows with this power of a name's length

_CHARACTER = r"(?:\\[.dw]|\[\^?(?:\w(?:-\w)?|\.)+\]|[\w.-])"
_REPETITION = r"(?:[*+]|\{\d{1,2}(?:,\d{1,2})?\})"
_PATTERN = re.compile(rf"(?:{_CHARACTER}(?:{_REPETITION}|\?)?|\((?:\?:)?|\)\??|\||[\^$])+", re.ASCII)
_REPEATED = re.compile(rf"{_CHARACTER}({_REPETITION})", re.ASCII)
_DEVICE = re.compile(r"cpu|metal|(?:cuda|rocm|vulkan):\d{1,3}")
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


@dataclass(frozen=True, slots=True)
class TensorOverride:
    """Tensors whose names contain the pattern, and the device that they lie on: cpu or a GPU's name."""

    pattern: str
    device: str


def tensor_overrides(load: Load) -> list[TensorOverride]:
    """In the order in which they are tried: the first that matches a tensor applies. Raises InvalidRequest."""
    overrides = [_read(entry) for entry in load.override_tensor]
    if load.cpu_moe:
        return [*overrides, TensorOverride(_EXPERTS, CPU)]
    if load.cpu_moe_layers:
        layers = "|".join(map(str, range(load.cpu_moe_layers)))
        return [*overrides, TensorOverride(rf"blk\.({layers}){_EXPERTS}", CPU)]
    return overrides


def gpus_named(load: Load) -> set[str]:
    """The GPUs that the overrides name. Raises InvalidRequest."""
    return {override.device for override in tensor_overrides(load)} - {CPU}


def placed_bytes(tensors: Mapping[str, int], overrides: Sequence[TensorOverride]) -> dict[str, int]:
    """Bytes by device, of the tensors that the overrides place. `tensors`: bytes by name."""
    searches = [(re.compile(each.pattern, re.ASCII), each.device) for each in overrides]
    placed: Counter[str] = Counter()
    for name, size in tensors.items():
        device = next((device for pattern, device in searches if pattern.search(name)), None)
        if device is not None:
            placed[device] += size
    return dict(placed)


def _read(entry: str) -> TensorOverride:
    pattern, equals, device = entry.rpartition("=")
    if not equals or _DEVICE.fullmatch(device) is None:
        raise _refusal(entry, "it must be PATTERN=DEVICE, with a device such as cpu or cuda:1")
    if _PATTERN.fullmatch(pattern) is None:
        raise _refusal(
            entry,
            "a pattern has letters, digits, _ - . \\. \\d \\w ^ $, sets such as [0-9], alternatives such as (up|down), "
            "and after a character or a set * + ? {2} or {1,3}",
        )
    if len(_REPEATED.findall(pattern)) > MOST_REPETITIONS:
        raise _refusal(entry, f"a pattern has at most {MOST_REPETITIONS} repetitions (* + {{}})")
    try:
        re.compile(pattern)
    except re.error as error:
        raise _refusal(entry, f"its pattern is not valid: {error}") from None
    return TensorOverride(pattern, device)


def _refusal(entry: str, why: str) -> InvalidRequest:
    return InvalidRequest(f'override_tensor: "{entry[:200]}": {why}.', param="override_tensor")
