"""The cores of a machine, and processes that are bound to some of them.
The readings of a GPU's driver, and their protobuf form."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from atelier.hardware import Readings, available_cores, bind, physical_cores
from protos import registry_pb2 as pb

linux_only = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to cores")


def test_hyperthreads_of_one_core_are_grouped(tmp_path: Path) -> None:
    for core, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert physical_cores(range(4), tmp_path) == [[0, 2], [1, 3]]
    assert physical_cores([1, 2, 3], tmp_path) == [[1, 3], [2]]


def test_cores_without_topology_are_separate(tmp_path: Path) -> None:
    assert physical_cores([3, 1], tmp_path) == [[1], [3]]


@linux_only
def test_every_thread_of_a_process_is_bound() -> None:
    program = (
        "import os, sys, threading\n"
        "go = threading.Event()\n"
        "others = [threading.Thread(target=go.wait) for _ in range(3)]\n"
        "[thread.start() for thread in others]\n"
        "print('started', flush=True); sys.stdin.readline()\n"
        "print([sorted(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')], flush=True)\n"
        "go.set()"
    )
    wanted = [min(available_cores())]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert bind(process.pid, wanted)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{[wanted] * 4}\n"


@linux_only
def test_a_process_that_has_ended_is_not_bound() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not bind(process.pid, available_cores())


def test_every_reading_survives_the_wire_and_may_be_missing() -> None:
    assert list(pb.Readings.DESCRIPTOR.fields_by_name) == [field.name for field in fields(Readings)]
    assert all(field.has_presence for field in pb.Readings.DESCRIPTOR.fields)
