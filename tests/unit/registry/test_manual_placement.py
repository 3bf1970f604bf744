"""Whether a model fits on the devices that were requested, on described machines."""

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from atelier.errors import LoadFailed
from atelier.settings import Load
from registry.devices.compute_device import CPU, Device, Inventory, ids_of, pin_name, readable
from registry.devices.manual_placement import (
    DeviceChoice,
    ManualPlacement,
    choice_of,
    fit_choice,
    lay_out,
    split_layers,
)
from registry.devices.placement import DoesNotFit, MemoryNeed, Occupant
from registry.models.memory_estimate import Estimate

GB = 10**9
NEED = MemoryNeed(Estimate(weights=28 * GB, kv_cache=4 * GB, compute=GB), layers=31)  # 32 with the output, of 1 GB each


def gpu(id: str, total: int = 80, free: int | None = None, integrated: bool = False) -> Device:
    return Device(id, "a GPU", total * GB, (total if free is None else free) * GB, integrated)


def machine(*gpus: Device, memory: int = 64, available: int | None = None) -> Inventory:
    return Inventory(gpus, memory * GB, (memory if available is None else available) * GB)


def instance(id: str, idle: float = 0.0, **gigabytes: int) -> Occupant:
    memory = {name.replace("_", ":"): count * GB for name, count in gigabytes.items()}
    return Occupant(id, memory, idle, evictable=idle > 0)


def chosen(load: Load, inventory: Inventory) -> DeviceChoice:
    choice = choice_of(load, inventory.gpus)
    assert choice is not None
    return choice


THREE = [gpu("cuda:0"), gpu("cuda:1"), gpu("cuda:2")]
LAPTOP = [gpu("vulkan:0", 16, integrated=True), gpu("vulkan:1", 8), gpu("cuda:0", 8)]


@pytest.mark.parametrize(
    ("load", "gpus", "devices"),
    [
        (Load(device="cuda:1"), THREE, ["cuda:1"]),
        (Load(device="cuda:2,00"), THREE, ["cuda:2", "cuda:0"]),  # in the worker's order
        (Load(device="auto", gpu_layers=4), THREE, ["cuda:0", "cuda:1", "cuda:2"]),
        (Load(device="auto", tensor_split=[1]), THREE, ["cuda:0", "cuda:1", "cuda:2"]),
        (Load(device="auto", gpu_layers=4), LAPTOP, ["vulkan:1"]),  # of one backend, and not the integrated one
        (Load(device="vulkan:0"), LAPTOP, ["vulkan:0"]),
        (Load(device="vulkan:0,1"), LAPTOP, ["vulkan:1"]),
        (Load(device="metal"), [gpu("metal")], ["metal"]),
        (Load(device="cpu"), THREE, []),
        (Load(device="cuda:1", gpu_layers=0), THREE, []),
        (Load(device="auto", gpu_layers=4), [], []),  # llama.cpp uses main memory
    ],
)
def test_the_requested_devices_are_selected(load: Load, gpus: list[Device], devices: list[str]) -> None:
    choice = choice_of(load, gpus)
    assert choice is not None
    assert [device.id for device in choice.devices] == devices


def test_an_unknown_device_is_rejected_by_name() -> None:
    with pytest.raises(LoadFailed, match=r"no device cuda:3.*cuda:0, cuda:1, cuda:2") as refusal:
        choice_of(Load(device="cuda:1,3"), THREE)
    assert refusal.value.param == "device"


def test_an_unknown_main_gpu_is_rejected_with_those_that_exist() -> None:
    with pytest.raises(LoadFailed, match=r"main_gpu is one of 0 \(cuda:1\), 1 \(cuda:0\)") as refusal:
        choice_of(Load(device="cuda:1,0", split_mode="none", main_gpu=2), THREE)
    assert refusal.value.param == "main_gpu"
    assert choice_of(Load(device="cpu", split_mode="none", main_gpu=2), THREE) is not None


def test_without_known_gpus_the_choice_is_left_to_the_worker() -> None:
    assert choice_of(Load(device="cuda:0"), []) is None


@pytest.mark.parametrize("name", ["cuda:1", "rocm:0,2", "vulkan:3,1", "metal"])
def test_a_device_name_survives_a_round_trip(name: str) -> None:
    assert pin_name([gpu(id) for id in ids_of(name)]) == name


@pytest.mark.parametrize(
    ("load", "memory"),
    [
        (Load(device="cuda:1"), {"cuda:1": 33}),
        (Load(device="cuda:1", gpu_layers=32), {"cuda:1": 33}),
        (Load(device="cuda:1", gpu_layers=99), {"cuda:1": 33}),
        (Load(device="cuda:1", gpu_layers=31), {"cuda:1": 32, CPU: 2}),  # the output is among the 31
        (Load(device="cuda:1", gpu_layers=1), {"cuda:1": 2, CPU: 32}),
        (Load(device="cuda:1", gpu_layers=0), {CPU: 33}),
        (Load(device="cpu"), {CPU: 33}),
        # several: in proportion to their free memory, 79, 79 and 19 GB without the buffers
        (Load(device="cuda:0,1"), {"cuda:0": 17, "cuda:1": 17}),
        (Load(device="cuda:0,2"), {"cuda:0": 27, "cuda:2": 7}),
        (Load(device="auto", gpu_layers=8), {"cuda:0": 5, "cuda:1": 5, CPU: 25}),  # a fraction of a layer is dropped
        # by the requested split
        (Load(device="cuda:0,1", tensor_split=[3, 1]), {"cuda:0": 25, "cuda:1": 9}),
        (Load(device="cuda:0,1", tensor_split=[3, 1], gpu_layers=16), {"cuda:0": 13, "cuda:1": 5, CPU: 17}),
        (Load(device="cuda:1,0", tensor_split=[3, 1]), {"cuda:1": 25, "cuda:0": 9}),
        (Load(device="cuda:0,1", tensor_split=[0, 1]), {"cuda:1": 33}),
        (Load(device="cuda:0,1", tensor_split=[2]), {"cuda:0": 33}),  # missing shares are zero
        (Load(device="cuda:0,1", tensor_split=[0, 0]), {"cuda:0": 17, "cuda:1": 17}),  # as without a split
        (Load(device="cuda:0,1", tensor_split=[1, 1, 8]), {"cuda:0": 17, "cuda:1": 17}),
        (Load(device="auto", tensor_split=[1, 0, 1]), {"cuda:0": 17, "cuda:2": 17}),
        (Load(device="cuda:0", tensor_split=[0.3]), {"cuda:0": 33}),
        # all on the main GPU
        (Load(device="cuda:0,1", split_mode="none"), {"cuda:0": 33}),
        (Load(device="cuda:1,0", split_mode="none", main_gpu=1), {"cuda:0": 33}),
        (Load(device="auto", split_mode="none", main_gpu=1, tensor_split=[1, 1]), {"cuda:1": 33}),
        (Load(device="auto", split_mode="none", main_gpu=1, gpu_layers=16), {"cuda:1": 17, CPU: 17}),
        (Load(device="cuda:0,1", main_gpu=1), {"cuda:0": 17, "cuda:1": 17}),
    ],
)
def test_memory_is_laid_out_over_the_devices(load: Load, memory: dict[str, int]) -> None:
    inventory = machine(gpu("cuda:0"), gpu("cuda:1"), gpu("cuda:2", 20))
    found = fit_choice(NEED, chosen(load, inventory), inventory, [])
    assert isinstance(found, ManualPlacement)
    assert {id: taken / GB for id, taken in found.layout.memory.items()} == memory


@pytest.mark.parametrize(
    ("load", "memory"),
    [
        (Load(device="cuda:0", offload_kv=False), {"cuda:0": 29, CPU: 5}),
        (Load(device="cuda:0", offload_kv=False, gpu_layers=16), {"cuda:0": 15, CPU: 19}),
    ],
)
def test_a_cache_that_is_not_offloaded_is_in_main_memory(load: Load, memory: dict[str, int]) -> None:
    inventory = machine(gpu("cuda:0"))
    found = fit_choice(NEED, chosen(load, inventory), inventory, [])
    assert isinstance(found, ManualPlacement)
    assert {id: taken / GB for id, taken in found.layout.memory.items()} == memory


@pytest.mark.parametrize(
    ("load", "fixed", "memory"),
    [
        (Load(device="cuda:0"), {CPU: 16}, {"cuda:0": 17, CPU: 17}),
        (Load(device="cuda:0", gpu_layers=16), {CPU: 16}, {"cuda:0": 9, CPU: 25}),
        (Load(device="cuda:0", offload_kv=False), {CPU: 12}, {"cuda:0": 17, CPU: 17}),
        (Load(device="cuda:0,1", tensor_split=[1, 0]), {"cuda:1": 16}, {"cuda:0": 17, "cuda:1": 17}),
        (Load(device="cuda:0,1", tensor_split=[1, 1]), {"cuda:1": 8, CPU: 8}, {"cuda:0": 9, "cuda:1": 17, CPU: 9}),
        (Load(device="cpu"), {CPU: 16}, {CPU: 33}),
    ],
)
def test_tensors_placed_by_name_are_counted_where_they_lie(
    load: Load, fixed: dict[str, int], memory: dict[str, int]
) -> None:
    inventory = machine(gpu("cuda:0"), gpu("cuda:1"))
    estimate = replace(NEED.estimate, fixed={id: size * GB for id, size in fixed.items()})
    need = replace(NEED, estimate=estimate)
    found = fit_choice(need, chosen(load, inventory), inventory, [])
    assert isinstance(found, ManualPlacement)
    assert {id: taken / GB for id, taken in found.layout.memory.items()} == memory


def test_tensors_on_a_gpu_that_the_model_does_not_use_are_rejected() -> None:
    overrides = ["exps=cuda:2"]
    for device in ("cuda:0,1", "cpu"):
        with pytest.raises(LoadFailed, match="override_tensor names cuda:2") as refusal:
            choice_of(Load(device=device, override_tensor=overrides), THREE)
        assert refusal.value.param == "override_tensor"
    assert choice_of(Load(device="cuda:2,1", override_tensor=overrides), THREE) is not None


@given(st.integers(0, 200), st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_layers_are_split_as_llama_cpp_does(count: int, shares: list[int]) -> None:
    assume(any(shares))
    bounds = [end / sum(shares) for end in accumulate(shares)]
    held = [0] * len(shares)
    for layer in range(count):
        held[next(at for at, bound in enumerate(bounds) if bound > layer / count)] += 1
    assert split_layers(count, shares) == held


@pytest.mark.parametrize(
    ("shares", "layers"), [([0.3, 0.7], [3, 7]), ([0.1, 0.2], [4, 6]), ([1e308, 1e308], [5, 5]), ([1e-300], [10])]
)
def test_shares_are_any_numbers(shares: list[float], layers: list[int]) -> None:
    assert split_layers(10, shares) == layers


counts = st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(any)


@given(counts)
def test_a_split_given_in_layers_is_used_exactly(counts: list[int]) -> None:
    assert split_layers(sum(counts), counts) == counts


def test_reserved_memory_is_not_allocated() -> None:
    inventory = machine(gpu("cuda:0", 35))
    assert isinstance(fit_choice(NEED, chosen(Load(device="cuda:0"), inventory), inventory, []), ManualPlacement)
    refused = fit_choice(NEED, chosen(Load(device="cuda:0"), inventory), inventory, [], kept=0.1)
    assert isinstance(refused, DoesNotFit)


FULL = machine(gpu("cuda:0", 40, free=10), gpu("cuda:1", 40, free=40), gpu("cuda:2", 40, free=10), available=10)


@pytest.mark.parametrize(
    ("load", "running", "evicted"),
    [
        (Load(device="cuda:0"), [instance("here", 9, cuda_0=30), instance("there", 99, cuda_2=30)], ["here"]),
        (Load(device="cuda:0"), [instance("new", 9, cuda_0=30), instance("old", 99, cuda_0=30)], ["old"]),
        (Load(device="cuda:0"), [instance("small", 99, cuda_0=5), instance("large", 9, cuda_0=25)], ["large"]),
        (Load(device="cuda:0"), [instance("a", 9, cuda_0=12), instance("b", 99, cuda_0=12)], ["b", "a"]),
        (Load(device="cuda:1"), [instance("idle", 9, cuda_1=0)], []),
        (Load(device="cuda:0"), [instance("busy", 0, cuda_0=30)], None),
        (Load(device="cuda:0"), [instance("idle", 9, cuda_0=15), instance("busy", 0, cuda_0=15)], None),
        # several: as many layers as fit
        (Load(device="cuda:0,1"), [instance("idle", 9, cuda_0=30)], []),
        (Load(device="cuda:0,2"), [instance("a", 9, cuda_0=15), instance("b", 99, cuda_2=15)], ["b"]),
        (
            Load(device="cuda:0,2", tensor_split=[1, 1]),
            [instance("a", 9, cuda_0=9), instance("b", 8, cuda_2=9)],
            ["a", "b"],
        ),
        (Load(device="cuda:0,2", tensor_split=[1, 1]), [instance("both", 9, cuda_0=15, cuda_2=15)], ["both"]),
        # main memory, too
        (Load(device="cuda:1", gpu_layers=16), [instance("idle", 9, cpu=20)], ["idle"]),
        (Load(device="cuda:1", gpu_layers=16), [instance("busy", 0, cpu=20)], None),
        (Load(device="cpu"), [instance("idle", 9, cpu=30), instance("there", 99, cuda_0=30)], ["idle"]),
        # an eviction frees no more than the device has
        (Load(device="metal"), [instance("idle", 9, metal=90)], None),
    ],
)
def test_instances_are_evicted_for_a_model(load: Load, running: list[Occupant], evicted: list[str] | None) -> None:
    inventory = FULL if load.device != "metal" else machine(gpu("metal", 32, free=5))
    found = fit_choice(NEED, chosen(load, inventory), inventory, running)
    assert (list(found.evicted) if isinstance(found, ManualPlacement) else None) == evicted


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (Load(device="cuda:0"), "cuda:0 lacks 21.4 GiB of the 30.7 GiB that it takes there"),
        (Load(device="cuda:1", gpu_layers=16), "main memory lacks 6.5 GiB of the 15.8 GiB that it takes there"),
        (Load(device="cuda:0,1", tensor_split=[2, 1]), "cuda:0 lacks 12.1 GiB of the 21.4 GiB that it takes there"),
        (Load(device="cuda:0,1", tensor_split=[7, 25]), ""),
    ],
)
def test_a_rejection_says_which_device_lacks_how_much(load: Load, reason: str) -> None:
    found = fit_choice(NEED, chosen(load, FULL), FULL, [])
    assert (found.reason if isinstance(found, DoesNotFit) else "") == reason


def test_a_rejection_counts_evictable_memory_as_available() -> None:
    refused = fit_choice(NEED, chosen(Load(device="cuda:0"), FULL), FULL, [instance("idle", 9, cuda_0=15)])
    assert isinstance(refused, DoesNotFit)
    assert refused.reason.startswith("cuda:0 lacks 7.5 GiB")


def test_all_devices_without_room_for_a_layer_are_listed() -> None:
    none = machine(gpu("cuda:0", free=0), gpu("cuda:1", free=1))
    refused = fit_choice(NEED, chosen(Load(device="cuda:0,1"), none), none, [])
    assert isinstance(refused, DoesNotFit)
    assert [part.split(" lacks ")[0] for part in refused.reason.split(", ")] == ["cuda:0", "cuda:1"]


def test_small_amounts_are_written_in_mebibytes() -> None:
    assert [readable(count) for count in (1, 2**29, 3 * 2**30)] == ["1 MiB", "512 MiB", "3.0 GiB"]


devices = st.lists(
    st.builds(
        lambda number, total, used: Device(f"cuda:{number}", "", total, max(0, total - used)),
        st.integers(0, 7),
        st.integers(1, 100),
        st.integers(0, 100),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda device: device.id,
)
needs = st.builds(
    lambda weights, kv, compute, layers: MemoryNeed(Estimate(weights, kv, compute), layers),
    st.integers(0, 200),
    st.integers(0, 100),
    st.integers(0, 20),
    st.integers(0, 40),
)
taken = st.dictionaries(st.sampled_from([CPU, *(f"cuda:{number}" for number in range(8))]), st.integers(0, 60))
running = st.lists(st.builds(Occupant, st.uuids().map(str), taken, st.floats(0, 100), st.booleans()), max_size=5)
loads: Any = st.builds(
    Load,
    device=st.just("auto"),
    gpu_layers=st.none() | st.integers(1, 45),
    tensor_split=st.lists(st.floats(0, 10), max_size=4),
    offload_kv=st.booleans(),
)


@given(devices, st.integers(0, 200), needs, running, loads)
def test_no_device_is_overcommitted_and_no_eviction_is_needless(
    gpus: list[Device], memory: int, need: MemoryNeed, running: list[Occupant], load: Load
) -> None:
    inventory = Inventory(gpus, 200, memory)
    choice = choice_of(load, gpus)
    assert choice is not None
    found = fit_choice(need, choice, inventory, running)
    if isinstance(found, DoesNotFit):
        evictable = [each for each in running if each.evictable]
        assert not _fits(need, choice, inventory, evictable)
        return
    gone = [each for each in running if each.id in found.evicted]
    assert all(each.evictable for each in gone)
    assert _fits(need, choice, inventory, gone)
    assert sum(found.layout.memory.values()) >= need.estimate.total
    assert sum(found.layout.layers) <= need.layers + 1
    for spared in gone:
        assert not _fits(need, choice, inventory, [each for each in gone if each is not spared])


def _fits(need: MemoryNeed, choice: DeviceChoice, inventory: Inventory, gone: list[Occupant]) -> bool:
    sizes = {CPU: (inventory.memory_total, inventory.memory_available)}
    sizes |= {gpu.id: (gpu.total, gpu.free) for gpu in inventory.gpus}
    rooms = {id: min(total, free + sum(each.memory.get(id, 0) for each in gone)) for id, (total, free) in sizes.items()}
    return all(taken <= rooms[id] for id, taken in lay_out(need, choice, rooms).memory.items())
