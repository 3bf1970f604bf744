"""Tensors that are placed by their names: which patterns are accepted, and what they match."""

import time

import pytest

from atelier.errors import InvalidRequest
from atelier.settings import Load
from atelier.tensor_placement import TensorOverride, gpus_named, placed_bytes, tensor_overrides

TENSORS = {
    **{f"blk.{layer}.attn_q.weight": 1 for layer in range(12)},
    **{f"blk.{layer}.ffn_{part}_exps.weight": 10 for layer in range(12) for part in ("up", "down", "gate")},
    "blk.3.ffn_up_shexp.weight": 2,
    "token_embd.weight": 5,
}


def placed(**load: object) -> dict[str, int]:
    return placed_bytes(TENSORS, tensor_overrides(Load(**load)))  # type: ignore[arg-type]


def test_without_settings_nothing_is_placed() -> None:
    assert placed() == {}


def test_the_experts_of_all_layers_or_of_the_first_are_in_main_memory() -> None:
    assert placed(cpu_moe=True) == {"cpu": 12 * 30}
    assert placed(cpu_moe_layers=2) == {"cpu": 2 * 30}
    assert placed(cpu_moe_layers=11) == {"cpu": 11 * 30}
    assert placed(cpu_moe_layers=500) == placed(cpu_moe=True, cpu_moe_layers=3) == {"cpu": 12 * 30}


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        (r"blk\.1\.", 31),
        (r"blk\.1", 31 * 3),  # layers 1, 10 and 11
        (r"blk\.(1[01]|3)\..*exps", 90),
        (r"^blk\.[2-4]\.attn_q\.weight$", 3),
        (r"blk\.\d{2}\.ffn_(?:up|gate)_exps", 40),
        (r"ffn_up_(sh)?exps?\.", 122),
        ("token_embd", 5),
        (r"\.ffn_[^u.]+_exps", 240),
        ("no_such_tensor", 0),
    ],
)
def test_a_pattern_is_searched_in_tensor_names(pattern: str, size: int) -> None:
    assert placed(override_tensor=[f"{pattern}=cpu"]).get("cpu", 0) == size


def test_the_first_override_that_matches_applies() -> None:
    overrides = [r"blk\.0\..*exps=cuda:1", "exps=cpu"]
    assert placed(override_tensor=overrides) == {"cuda:1": 30, "cpu": 11 * 30}
    assert placed(override_tensor=[r"blk\.0\.=cuda:0"], cpu_moe=True) == {"cuda:0": 31, "cpu": 11 * 30}
    assert gpus_named(Load(override_tensor=overrides, cpu_moe=True)) == {"cuda:1"}


@pytest.mark.parametrize(
    "entry",
    [
        "exps",
        "exps=",
        "=cpu",
        "exps=gpu",
        "exps=rpc:0",
        "exps=cuda:0,1",
        "(exps=cpu",
        "exps)=cpu",
        "[9-0]=cpu",
        "a**=cpu",
        "*a=cpu",
        "(a+)+=cpu",
        "(a|b)*=cpu",
        "(a){9}=cpu",
        "a{999}=cpu",
        ".*.*.*.*.*=cpu",
        "a(?=b)=cpu",
        "(a)\\1=cpu",
        "[[:alpha:]]=cpu",
        "é=cpu",
        "a b=cpu",
    ],
)
def test_other_entries_are_rejected_by_name(entry: str) -> None:
    with pytest.raises(InvalidRequest, match="override_tensor") as refusal:
        tensor_overrides(Load(override_tensor=[entry]))
    assert refusal.value.param == "override_tensor"


def test_the_slowest_pattern_is_searched_in_time() -> None:
    slowest = TensorOverride(r"\w*\w*\w*\w*=", "cpu")
    assert tensor_overrides(Load(override_tensor=[r"\w*\w*\w*\w*-=cpu"]))
    started = time.perf_counter()
    placed_bytes({"a" * 63: 1}, [slowest])
    assert time.perf_counter() - started < 1
