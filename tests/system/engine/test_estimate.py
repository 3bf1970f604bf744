"""The estimate of a model's memory, compared with the buffers that llama.cpp reports."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atelier.settings import Load
from registry.models.memory_estimate import Estimate, estimate_memory
from registry.models.split_files import read_facts
from worker.engine.model.context import Context, generation_params
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system

BUFFER = re.compile(r"(model|KV|compute|output) buffer size = +([\d.]+) MiB")


class Accounts(LlamaLog):
    """Adds up the buffers that llama.cpp reports in its log."""

    def __init__(self) -> None:
        self.mib: dict[str, float] = dict.fromkeys(("model", "KV", "compute", "output"), 0.0)
        super().__init__()

    def _receive(self, level: int, text: bytes, data: Any) -> None:
        if found := BUFFER.search(text.decode(errors="replace")):
            self.mib[found[1]] += float(found[2])
        super()._receive(level, text, data)


@pytest.fixture(scope="module")
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture(scope="module")
def model(starter_model: Path, accounts: Accounts) -> Iterator[LoadedModel]:
    opened = LoadedModel(str(starter_model), Load(), accounts, lambda _: True)
    yield opened
    opened.close()


def measured(model: LoadedModel, load: Load, accounts: Accounts) -> Estimate:
    before = dict(accounts.mib)
    Context(model, generation_params(load, on_gpu=model.gpu_layers > 0), accounts).close()
    mib = {name: accounts.mib[name] - before[name] for name in before}
    parts = (accounts.mib["model"], mib["KV"], mib["compute"] + mib["output"])
    return Estimate(*(round(part * 2**20) for part in parts))


@pytest.mark.parametrize(
    "settings",
    [
        {"context_length": 512, "parallel": 1},
        {"context_length": 2048, "parallel": 8},
        {"context_length": 4096, "parallel": 8, "kv_unified": True},
        {"context_length": 4096, "parallel": 4, "kv_type": "q8_0"},
        {"context_length": 8192, "parallel": 2, "kv_type": "q8_0", "ubatch_size": 64},
        {"context_length": 2048, "parallel": 2, "k_type": "q8_0", "v_type": "f32"},
        {"context_length": 8192, "parallel": 1, "flash_attention": False},
        {"context_length": 8192, "parallel": 4, "flash_attention": False, "ubatch_size": 64},
        {"context_length": 1000, "parallel": 3, "flash_attention": False, "kv_unified": True, "ubatch_size": 128},
    ],
    ids=lambda settings: "-".join(f"{value}" for value in settings.values()),
)
def test_the_estimate_is_close_to_llama_cpps_use(
    model: LoadedModel, accounts: Accounts, starter_model: Path, settings: dict[str, Any]
) -> None:
    load = Load(**settings)
    shape = read_facts(starter_model).shape
    assert shape is not None
    estimate, real = estimate_memory(shape, load), measured(model, load, accounts)
    assert estimate.weights == pytest.approx(real.weights, rel=0.1)
    assert estimate.kv_cache == pytest.approx(real.kv_cache, rel=0.1)
    assert 0.9 * real.compute <= estimate.compute <= 1.35 * real.compute
