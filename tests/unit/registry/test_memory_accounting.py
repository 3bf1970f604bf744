"""How much memory is left for another instance, and which ones are unloaded for it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.machine_memory import Memory, machine_memory
from registry.devices.compute_device import Device, Inventory
from registry.devices.eviction import Tenant, evictions
from registry.devices.memory_accounting import (
    Cache,
    Resident,
    caches_to_release,
    committed_memory,
    guardrail,
    minus_granted,
    minus_loaded,
    plus_caches,
    plus_freed,
    shared_pages,
    sized_cache,
)


def tenant(id: str, memory: int, idle: float, evictable: bool = True) -> Tenant:
    return Tenant(id, memory, idle, evictable)


@pytest.mark.parametrize(
    ("needed", "available", "going"),
    [
        (10, 10, []),
        (10, 5, ["older"]),
        (12, 5, ["old"]),
        (16, 5, ["older", "old"]),
        (40, 5, ["large"]),  # those idle for longer would not be enough, and are not needed then
        (58, 5, ["older", "old", "large"]),
        (100, 5, None),
    ],
)
def test_the_longest_idle_is_evicted_first(needed: int, available: int, going: list[str] | None) -> None:
    tenants = [
        tenant("large", 40, 10),
        tenant("older", 5, 300),
        tenant("old", 8, 200),
        tenant("busy", 100, 0, evictable=False),
    ]
    assert evictions(needed, available, tenants) == going


tenants = st.lists(
    st.builds(
        Tenant,
        id=st.uuids().map(str),
        memory=st.integers(1, 50),
        idle_seconds=st.floats(0, 100),
        evictable=st.booleans(),
    ),
    max_size=8,
)


@given(st.integers(0, 300), st.integers(-50, 300), tenants)
def test_only_evictable_instances_are_evicted_and_no_more_than_needed(
    needed: int, available: int, tenants: list[Tenant]
) -> None:
    by_id = {each.id: each for each in tenants}
    going = evictions(needed, available, tenants)
    if going is None:
        assert available + sum(each.memory for each in tenants if each.evictable) < needed
        return
    chosen = [by_id[each] for each in going]
    assert all(each.evictable for each in chosen)
    freed = sum(each.memory for each in chosen)
    assert available + freed >= needed
    assert all(available + freed - each.memory < needed for each in chosen)


def test_stricter_guardrails_reserve_more() -> None:
    assert [guardrail(name, 7) for name in ("relaxed", "balanced", "strict")] == [(0.0, 0), (0.05, 0), (0.15, 0)]
    assert guardrail("custom", 7) == (0.0, 7)


def test_granted_memory_is_subtracted() -> None:
    inventory = Inventory([Device("cuda:0", "", 100, 80)], 1000, 500)
    left = minus_granted(inventory, [{"cuda:0": 30, "cpu": 50}, {"cuda:0": 60}], 100)
    assert (left.gpus[0].free, left.memory_available) == (0, 350)


def test_unloading_frees_memory_up_to_the_total() -> None:
    inventory = Inventory([Device("cuda:0", "", 100, 30), Device("cuda:1", "", 100, 30)], 1000, 500)
    left = plus_freed(inventory, [{"cuda:0": 20, "cpu": 50}, {"cuda:0": 10, "cuda:1": 99}])
    assert ([gpu.free for gpu in left.gpus], left.memory_available) == ([60, 100], 550)
    assert plus_freed(inventory, [{"cpu": 900}]).memory_available == 1000


def test_a_device_that_does_not_report_other_use_is_charged_by_estimates() -> None:
    inventory = Inventory([Device("metal", "", 100, 95), Device("cuda:0", "", 100, 95)], 1000, 500)
    loaded = [{"metal": 30, "cuda:0": 30}, {"metal": 40}]
    assert [gpu.free for gpu in minus_loaded(inventory, loaded).gpus] == [30, 95]
    assert [gpu.free for gpu in minus_loaded(inventory, [{"metal": 200}]).gpus] == [0, 95]
    assert [gpu.free for gpu in minus_loaded(inventory, [{"metal": 1}]).gpus] == [
        95,
        95,
    ]  # other processes use the rest


def test_a_containers_limit_applies(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 1 kB\nMemAvailable:  2048 kB\n")
    whole = machine_memory(meminfo, tmp_path)
    assert whole.available == 2048 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory(meminfo, tmp_path) == whole
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    assert machine_memory(meminfo, tmp_path) == Memory(1000, 400)


def test_a_file_mapped_by_several_instances_counts_once() -> None:
    residents = [Resident("a", 10, 15), Resident("a", 10, 12), Resident("b", 5, 6), Resident("b", 5, 2)]
    assert committed_memory(residents) == 15 + 2 + 6 + 0
    assert committed_memory([]) == 0


def test_the_shared_pages_of_a_file_are_the_largest_mapping() -> None:
    residents = [Resident("a", 10, 4), Resident("a", 60, 62), Resident("b", 5, 9)]
    assert (shared_pages(residents, "a"), shared_pages(residents, "b"), shared_pages(residents, "c")) == (60, 5, 0)
    assert committed_memory(residents) == committed_memory(residents[::-1]) == 60 + 2 + 5 + 4


def test_caches_of_the_longest_idle_instances_make_way_first_and_only_as_far_as_needed() -> None:
    caches = [Cache("busy", 100, 200, 0.0), Cache("empty", 0, 200, 9.0), Cache("old", 50, 200, 8.0)]
    assert caches_to_release(0, caches) == caches_to_release(-5, caches) == {}
    assert caches_to_release(30, caches) == {"old": 30}
    assert caches_to_release(80, caches) == {"old": 50, "busy": 30}
    assert caches_to_release(1000, caches) == {"old": 50, "busy": 100}


def test_memory_of_caches_counts_as_free() -> None:
    inventory = Inventory([], memory_total=1000, memory_available=300)
    assert plus_caches(inventory, [Cache("a", 100, 200, 0.0), Cache("b", 50, 60, 0.0)]).memory_available == 450
    assert plus_caches(inventory, [Cache("a", 900, 900, 0.0)]).memory_available == 1000


def test_each_further_cache_is_a_share_of_what_the_others_leave() -> None:
    assert sized_cache(1000, []) == 250
    assert sized_cache(1000, [Cache("a", 0, 250, 0.0)]) == 187
    assert sized_cache(1000, [Cache("a", 0, 1250, 0.0)]) == 0
