"""Which instances have a second cache tier, and the identity of its files."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing

from atelier.config import make_private
from atelier.launch import LaunchSpec
from atelier.lora_adapters import Adapter
from atelier.machine_memory import Memory
from atelier.settings.groups import Load
from tests.support.worker.batching import SteadyCosts
from tests.support.worker.fake_context import FakeContext
from worker.engine.cache import ram_limit
from worker.engine.cache.cache_tier import CacheTier, open_tier
from worker.engine.cache.ram_limit import RamLimit
from worker.engine.cache.slot_contents import SlotContents
from worker.engine.cache.state_file import model_files, state_identity, write_state

SLOTS = 2
CONTEXT: Any = FakeContext(SLOTS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    return tmp_path / "model.gguf"


def spec(model: Path, cache_dir: str = "", **load: Any) -> LaunchSpec:
    return LaunchSpec(
        instance_id="a/b",
        engine="llama",
        model_path=str(model),
        load=Load(**load),
        address="",
        token="",
        grace_seconds=1,
        cache_dir=cache_dir,
    )


def opened(spec: LaunchSpec, *, reuse: bool = True) -> tuple[CacheTier | None, list[str]]:
    """The tier, and the warnings."""
    with structlog.testing.capture_logs() as logs:
        tier = open_tier(spec, CONTEXT, SteadyCosts(), reuse=reuse, whole=False, gpu_layers=0, devices=["CPU"])
    return tier, [entry["event"] for entry in logs if entry["log_level"] == "warning"]


def test_the_tier_is_sized_by_the_free_memory_by_default(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram_limit, "machine_memory", lambda: Memory(8000, 4000))
    tier, warnings = opened(spec(model))
    assert tier is not None
    assert (tier.ram_limit, warnings) == (1000, [])
    assert opened(spec(model), reuse=False) == (None, [])


def test_the_tier_can_be_off(model: Path) -> None:
    assert opened(spec(model, cache_ram=0)) == (None, [])


def test_only_a_size_that_was_not_requested_makes_way(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram_limit, "machine_memory", lambda: Memory(8000, 0))
    requested = spec(model, cache_ram=3)
    for launch, limit in ((requested, 3 * 2**20), (dataclasses.replace(requested, cache_sized=True), 0)):
        tier, _ = opened(launch)
        assert tier is not None
        assert tier.ram_limit == 3 * 2**20
        assert RamLimit(tier.ram_limit, makes_way=launch.cache_sized).now(0) == limit


@pytest.mark.parametrize("load", [{"cache_ram": 1}, {"cache_disk": 1}])
def test_a_cache_that_cannot_be_truncated_has_no_tier_and_a_warning(model: Path, load: dict[str, int]) -> None:
    assert opened(spec(model, **load), reuse=False) == (None, ["cache_tier_off"])


def test_an_unusable_directory_leaves_the_ram_tier(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in ("", str(tmp_path / "file" / "cache")):
        tier, warnings = opened(spec(model, directory, cache_ram=1, cache_disk=1))
        assert tier is not None
        assert warnings == ["cache_disk_off"]
        assert opened(spec(model, directory, cache_ram=0, cache_disk=1)) == (None, ["cache_disk_off"])


def test_the_directory_is_made_only_for_the_disk_tier(model: Path, tmp_path: Path) -> None:
    opened(spec(model, str(tmp_path / "cache"), cache_ram=1))
    assert not (tmp_path / "cache").exists()


def identity(model: Path, load: Load | None = None, **facts: Any) -> bytes:
    return state_identity([str(model)], load or Load(), **{"gpu_layers": 0, "devices": ["CPU"], **facts})


OTHERS: dict[str, Any] = {
    "context_length": 512, "parallel": 2, "device": "cpu", "threads": 1, "gpu_layers": 3, "tensor_split": [1.0],
    "kv_type": "q8_0", "flash_attention": False, "batch_size": 64, "ubatch_size": 64, "offload_kv": False,
    "kv_unified": True, "lora": ["poet.gguf"], "swa_full": True,
    "threads_batch": 2, "k_type": "q8_0", "v_type": "q8_0", "reproducible": True, "prefill_pause": 3.0,
    "rope_scaling": "yarn",
    "rope_freq_scale": 0.5, "rope_freq_base": 1e6, "yarn_original_context": 512, "yarn_ext_factor": 0.5,
    "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0, "split_mode": "none", "main_gpu": 1, "cpu_moe": True,
    "cpu_moe_layers": 1, "override_tensor": ["exps=cpu"], "num_experts": 1,
}  # fmt: skip
WITHOUT_EFFECT: dict[str, Any] = {
    "cache_ram": 1, "cache_disk": 1, "checkpoints": 1, "cores": "0", "mmap": False, "mlock": True, "load_seed": 1,
    "speculation": "prompt_lookup", "draft_model": "small", "draft_tokens": 2,
}  # fmt: skip


def test_every_setting_is_either_part_of_a_states_identity_or_listed_as_irrelevant() -> None:
    assert {*OTHERS, *WITHOUT_EFFECT} == {field.name for field in dataclasses.fields(Load)}


def test_states_of_an_adapter_are_kept_while_its_file_is_unchanged(model: Path, tmp_path: Path) -> None:
    poet, cache = tmp_path / "poet.gguf", make_private(tmp_path / "caches" / "cache")
    poet.write_bytes(b"GGUF")
    adapted = dataclasses.replace(spec(model, str(cache), cache_disk=1), adapters=[Adapter("poet", str(poet), 1.0)])
    owner = state_identity([str(model), str(poet)], adapted.load, gpu_layers=0, devices=["CPU"])
    write_state(cache / "1.kv", owner, [(1, 2, 3)], np.zeros(8, np.uint8))
    assert adopted(adapted) == 1
    poet.write_bytes(b"GGUF anew")
    assert adopted(adapted) == 0


def adopted(spec: LaunchSpec) -> int:
    """How many states of an earlier worker the tier takes over."""
    with structlog.testing.capture_logs() as logs:
        tier = open_tier(spec, CONTEXT, SteadyCosts(), reuse=True, whole=False, gpu_layers=0, devices=["CPU"])
    assert tier is not None
    tier.close([], SlotContents(CONTEXT, None, divisible=False))
    return next(int(entry["states"]) for entry in logs if entry["event"] == "cache_tier_opened")


def test_relevant_settings_change_the_identity(model: Path) -> None:
    changed = [identity(model, Load(**{name: value})) for name, value in OTHERS.items()]
    changed += [identity(model, gpu_layers=1), identity(model, devices=["CUDA0"])]
    assert len({identity(model), *changed}) == 1 + len(changed)


def test_irrelevant_settings_do_not_change_the_identity(model: Path) -> None:
    assert {identity(model, Load(**{name: value})) for name, value in WITHOUT_EFFECT.items()} == {identity(model)}


def test_another_file_under_the_same_name_is_another_model(model: Path) -> None:
    before = identity(model)
    os.utime(model, (1, 1))
    touched = identity(model)
    model.write_bytes(b"GGUF, but longer")
    os.utime(model, (1, 1))
    assert len({before, touched, identity(model)}) == 3


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n-00001-of-00002.gguf", "m.gguf"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in model_files(tmp_path / names[0])] == names[:2]
