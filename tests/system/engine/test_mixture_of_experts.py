"""A mixture of experts: its experts in main memory, by layers and by name, and fewer of them used."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.settings.groups import Load
from atelier.tensor_placement import placed_bytes, tensor_overrides
from registry.models.split_files import read_facts
from tests.support.models.tiny_llama import EXPERTS_USED, LAYERS, write_tiny_llama
from worker.engine.model.context import Threads, open_context
from worker.engine.model.decode_run import Run
from worker.engine.model.loaded_model import LlamaLog, LoadedModel

pytestmark = pytest.mark.system

EXPERTS = 4
PROMPT = [3, 40, 50, 60]
OVERRIDDEN = re.compile(r"tensor (\S+) .* buffer type overridden to CPU")
USED = re.compile(r"n_expert_used += (\d+)")


class LoadLog(LlamaLog):
    """Collects what llama.cpp reports of overridden tensors and of experts."""

    def __init__(self) -> None:
        self.overridden: set[str] = set()
        self.used = 0
        super().__init__()

    def _receive(self, level: int, text: bytes, data: Any) -> None:
        line = text.decode(errors="replace")
        self.overridden |= set(OVERRIDDEN.findall(line))
        if found := USED.search(line):
            self.used = int(found[1])
        super()._receive(level, text, data)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("mixture") / "tiny.gguf", quantised=True, experts=EXPERTS)


@pytest.fixture
def log() -> Iterator[LoadLog]:
    yield LoadLog()
    ll.llama_log_set(ll.llama_log_callback(), None)


def logits(path: Path, log: LoadLog, **settings: Any) -> NDArray[np.float32]:
    """After a short prompt."""
    load = Load(context_length=256, parallel=1, **settings)
    with ExitStack() as opened:
        model = opened.enter_context(closing(LoadedModel(str(path), load, log, lambda _: True, "llama")))
        context = opened.enter_context(closing(open_context(model, model.load, log, Threads(1))))
        context.decode_runs([Run(slot=0, tokens=PROMPT, start=0, silent=len(PROMPT) - 1)])
        return context.logits(len(PROMPT) - 1).copy()


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"cpu_moe": True}, 3 * LAYERS),
        ({"cpu_moe_layers": 1}, 3),
        ({"override_tensor": [r"blk\.(1|7)\.ffn_(up|gate)_[a-z]{4}\.=cpu"]}, 2),
        ({"override_tensor": [r"^blk\.\d+\.attn_[qk]\.=cpu"], "cpu_moe_layers": 1}, 2 * LAYERS + 3),
    ],
)
def test_tensors_are_in_main_memory_as_counted_and_the_text_is_the_same(
    path: Path, log: LoadLog, settings: dict[str, Any], count: int
) -> None:
    expected = logits(path, log)
    assert not log.overridden
    assert np.array_equal(logits(path, log, **settings), expected)
    assert len(log.overridden) == count
    shape = read_facts(path).shape
    assert shape is not None
    placed = placed_bytes(shape.tensor_sizes, tensor_overrides(Load(**settings)))
    assert placed == {"cpu": sum(shape.tensor_sizes[name] for name in log.overridden)}


def test_fewer_experts_are_used_on_request(path: Path, log: LoadLog) -> None:
    expected = logits(path, log)
    assert log.used == EXPERTS_USED
    assert not np.allclose(logits(path, log, num_experts=1), expected, atol=1e-3)
    assert log.used == 1
    assert np.array_equal(logits(path, log, num_experts=EXPERTS_USED), expected)
