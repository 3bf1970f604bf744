"""Placement of models on described machines."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.devices.compute_device import CPU, Device, Inventory, pin_name, split_of
from registry.devices.placement import DoesNotFit, MemoryNeed, Occupant, Placement, place
from registry.models.memory_estimate import Estimate

GB = 10**9


def gpu(number: int, total: int, free: int | None = None, backend: str = "cuda") -> Device:
    return Device(f"{backend}:{number}", "a GPU", total * GB, (total if free is None else free) * GB)


def machine(*gpus: Device, memory: int = 64, available: int | None = None) -> Inventory:
    return Inventory(gpus, memory * GB, (memory if available is None else available) * GB)


def need(weights: int, kv: int = 1, compute: int = 1, layers: int = 32) -> MemoryNeed:
    return MemoryNeed(Estimate(weights * GB, kv * GB, compute * GB), layers)


def instance(id: str, idle: float = 0.0, **gigabytes: int) -> Occupant:
    memory = {name.replace("_", ":"): count * GB for name, count in gigabytes.items()}
    return Occupant(id, memory, idle, evictable=idle > 0)


FOUR = machine(*(gpu(number, 24) for number in range(4)))
SMALL = machine(gpu(0, 8), memory=32)
MIXED = machine(gpu(0, 24), gpu(1, 8), gpu(0, 16, backend="vulkan"), memory=32)
NONE = machine(memory=16)
ONE_FULL = machine(gpu(0, 24, free=1), gpu(1, 24))


@pytest.mark.parametrize(
    ("inventory", "wanted", "devices", "layers"),
    [
        # 4 x 24 GB
        (FOUR, need(7), "cuda:0", None),
        (FOUR, need(30), "cuda:0,1", None),
        (FOUR, need(60), "cuda:0,1,2", None),
        (FOUR, need(85), "cuda:0,1,2,3", None),
        (FOUR, need(120), "refused", None),  # more than the GPUs, and than main memory beside one of them
        # 1 x 8 GB and a CPU
        (SMALL, need(5), "cuda:0", None),
        (SMALL, need(14), "cuda:0", 15),  # of 32 layers; the rest in main memory
        (SMALL, need(100, layers=80), "refused", None),
        # different ones
        (MIXED, need(5), "cuda:1", None),  # the smallest that is enough
        (MIXED, need(12), "vulkan:0", None),
        (MIXED, need(20), "cuda:0", None),
        (MIXED, need(26), "cuda:0,1", None),  # never of two backends
        # none
        (NONE, need(7), "cpu", 0),
        (NONE, need(20), "refused", None),
        # one of two is full
        (ONE_FULL, need(7), "cuda:1", None),
        (ONE_FULL, need(22), "cuda:1", None),
    ],
)
def test_a_model_is_placed(inventory: Inventory, wanted: MemoryNeed, devices: str, layers: int | None) -> None:
    placed = place(wanted, inventory, [])
    if devices == "refused":
        assert isinstance(placed, DoesNotFit)
        return
    assert isinstance(placed, Placement)
    assert (pin_name(placed.devices), placed.layers, placed.evicted) == (devices, layers, ())


def with_experts(weights: int, experts: int, **sizes: int) -> MemoryNeed:
    plain = need(weights, **sizes)
    return replace(plain, estimate=replace(plain.estimate, fixed={CPU: experts * GB}))


@pytest.mark.parametrize(
    ("inventory", "wanted", "devices", "layers", "memory"),
    [
        (SMALL, with_experts(24, 19), "cuda:0", None, {"cuda:0": 7, CPU: 20}),
        (SMALL, with_experts(24, 12, layers=31), "cuda:0", 17, {"cuda:0": 8, CPU: 19}),
        (FOUR, with_experts(60, 20), "cuda:0,1", None, {"cuda:0": 21.5, "cuda:1": 21.5, CPU: 21}),
        (FOUR, with_experts(80, 70), "refused", None, {}),  # main memory lacks room for the experts
        (NONE, with_experts(12, 6), "cpu", 0, {CPU: 14}),
    ],
)
def test_experts_in_main_memory_leave_room_on_gpus(
    inventory: Inventory, wanted: MemoryNeed, devices: str, layers: int | None, memory: dict[str, float]
) -> None:
    placed = place(wanted, inventory, [])
    if devices == "refused":
        assert isinstance(placed, DoesNotFit)
        return
    assert isinstance(placed, Placement)
    assert (pin_name(placed.devices), placed.layers) == (devices, layers)
    assert {id: round(taken / GB, 1) for id, taken in placed.memory.items()} == pytest.approx(memory, abs=0.7)


def test_instances_are_spread_over_gpus() -> None:
    running = [instance("a", cuda_0=8), instance("b", cuda_1=8)]
    placed = place(need(7), machine(gpu(0, 24, 16), gpu(1, 24, 16), gpu(2, 24)), running)
    assert isinstance(placed, Placement)
    assert pin_name(placed.devices) == "cuda:2"


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ([instance("idle", 100, cuda_0=20)], ("cuda:0", None, ("idle",))),
        ([instance("newer", 10, cuda_0=20), instance("older", 99, cuda_1=20)], ("cuda:1", None, ("older",))),
        ([instance("a", 10, cuda_0=10), instance("b", 10, cuda_0=10)], ("cuda:0", None, ("a", "b"))),
        ([instance("busy", 0, cuda_0=20), instance("busy too", 0, cuda_1=20)], ("cuda:0", 4, ())),
    ],
)
def test_idle_instances_are_evicted_and_busy_ones_are_not(running: list[Occupant], expected: Any) -> None:
    full = machine(gpu(0, 24, free=4), gpu(1, 24, free=4), memory=64)
    placed = place(need(20, layers=32), full, running)
    assert isinstance(placed, Placement)
    assert (pin_name(placed.devices), placed.layers, placed.evicted) == expected


def test_reserved_memory_is_not_allocated() -> None:
    assert isinstance(place(need(22, kv=1, compute=1), machine(gpu(0, 24), memory=1), [], kept=0.1), DoesNotFit)
    placed = place(need(19, kv=1, compute=1), machine(gpu(0, 24), memory=8), [], kept=0.1)
    assert isinstance(placed, Placement)


def test_each_gpu_has_its_own_buffers() -> None:
    placed = place(need(40, kv=2, compute=3), machine(gpu(0, 24), gpu(1, 24), gpu(2, 24)), [])
    assert isinstance(placed, Placement)
    assert sum(placed.memory.values()) >= (40 + 2 + 2 * 3) * GB - 2
    assert split_of(placed.devices, placed.memory) == [0.5, 0.5]


def test_a_rejection_says_how_much_memory_is_available() -> None:
    refused = place(need(100), machine(gpu(0, 24), memory=16), [])
    assert isinstance(refused, DoesNotFit)
    assert "22.4 GiB" in refused.reason


gpus = st.lists(
    st.builds(
        lambda number, total, used, backend: Device(f"{backend}:{number}", "", total, max(0, total - used)),
        st.integers(0, 7),
        st.integers(1, 100),
        st.integers(0, 100),
        st.sampled_from(["cuda", "vulkan"]),
    ),
    max_size=5,
    unique_by=lambda device: device.id,
)


@given(
    gpus,
    st.integers(0, 200),
    st.integers(0, 100),
    st.integers(0, 20),
    st.integers(0, 10),
    st.integers(0, 40),
    st.integers(0, 100),
)
def test_no_device_is_overcommitted(
    gpus: list[Device], memory: int, weights: int, kv: int, compute: int, layers: int, experts: int
) -> None:
    inventory = Inventory(gpus, memory, memory)
    fixed = {CPU: min(experts, weights)} if experts else {}
    placed = place(MemoryNeed(Estimate(weights, kv, compute, fixed), layers), inventory, [])
    if isinstance(placed, DoesNotFit):
        return
    rooms = {**{device.id: device.free for device in gpus}, CPU: memory}
    assert all(taken <= rooms[id] for id, taken in placed.memory.items())
    assert len({device.backend for device in placed.devices}) <= 1
    assert sum(placed.memory.values()) >= weights + kv
