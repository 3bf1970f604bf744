"""The check of machines with a GPU, on any machine: its server, its estimates, and its refusal."""

import subprocess
import sys
from pathlib import Path

from atelier.settings import Load
from registry.models.memory_estimate import estimate_memory
from registry.models.split_files import read_facts
from tests.gpu_check.checks import SPREAD, estimated_on_gpus
from tests.gpu_check.gpu_memory import GpuUse
from tests.gpu_check.subject_server import SubjectServer, server_with
from tests.gpu_check.verdicts import Outcome, judge_pin
from tests.support.models.gguf_files import write_gguf

GPU = GpuUse("a GPU", 2**34, 2**30)
NO_DRIVER = """
import pynvml, sys

def absent():
    raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

pynvml.nvmlInit = absent
from tests.gpu_check.__main__ import main
sys.argv = ["gpu_check"]
sys.exit(main())
"""


class FakeDriver:
    """A GPU that no process uses."""

    def read(self) -> list[GpuUse]:
        return [GPU]


async def test_a_load_is_measured_by_the_workers_own_process(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "Tiny.gguf", chat_template="{{ messages[0].content }}")
    with server_with(model, tmp_path / "home", {"ATELIER_ENGINE": "scripted"}) as server:
        subject = SubjectServer(server, FakeDriver())
        async with subject.loaded(device="cpu", context_length=512, parallel=2) as load:
            assert load.pid in {process.pid for process in server.tree()}
            assert (load.visible, load.reported_layers, load.grown, load.used_by) == ("-1", 0, [0], [])
            assert judge_pin("cpu", None, load).outcome is Outcome.PASSED
            assert judge_pin("cuda:0", 0, load).outcome is Outcome.FAILED
            assert await subject.tokens_per_second(2, 4) > 0
            alone = await subject.texts(["a b", "c d"], 2, at_once=False)
            assert alone == await subject.texts(["a b", "c d"], 2, at_once=True)
        assert server.instances() == []


def test_an_estimate_is_the_one_that_placement_makes(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "Tiny.gguf")
    shape = read_facts(model).shape
    assert shape is not None
    for settings in SPREAD.values():
        whole = estimate_memory(shape, Load(**settings)).total
        assert 0 < estimated_on_gpus(model, [GPU], settings) <= whole + 64  # rounded up for each layer
        assert estimated_on_gpus(model, [GPU], {**settings, "gpu_layers": 0}) < whole


def test_without_a_gpu_nothing_is_claimed() -> None:
    """Also on a machine that has one: its driver is not found here."""
    done = subprocess.run([sys.executable, "-c", NO_DRIVER], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No GPU was checked" in done.stderr
