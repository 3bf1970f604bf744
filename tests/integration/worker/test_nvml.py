"""The real NVML client in a separate process, with a library that is compiled for the test."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.worker.fake_gpus import broken_nvml, fake_nvml

WAIT_SECONDS = 60
LIB_RM_VERSION_MISMATCH = 18  # after an update of the driver, until the machine is restarted
ASK = """
import dataclasses, json
from worker.nvml import gpu_readings
{}
print(json.dumps(found, default=dataclasses.asdict))
"""
ONCE = f"found = gpu_readings(patience={WAIT_SECONDS})"
IMPATIENTLY = "found = gpu_readings(patience=0.01)"
UNTIL_SOME_ARE_FOUND = "while not (found := gpu_readings(patience=0.05)): pass"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds NVML by LD_LIBRARY_PATH")


def ask(environment: Mapping[str, str], how: str = ONCE) -> dict[str, dict[str, Any]]:
    """The readings by bus id; raises CalledProcessError when it fails."""
    command = [sys.executable, "-W", "error", "-c", ASK.format(how)]
    surroundings = {**os.environ, **environment}
    process = subprocess.run(command, env=surroundings, capture_output=True, timeout=WAIT_SECONDS, check=True)
    assert process.stderr == b""
    found: dict[str, dict[str, Any]] = json.loads(process.stdout)
    return found


def test_a_gpu_is_reported_in_full(tmp_path: Path) -> None:
    assert ask(fake_nvml(tmp_path))["0000:c1:00.0"] == {
        "uuid": "GPU-1",
        "pci_bus_id": "0000:c1:00.0",
        "driver_version": "580.65.06",
        "utilization_percent": 87,
        "memory_utilization_percent": 0,
        "memory_used_bytes": 9 * 2**30,
        "temperature_celsius": 64,
        "power_watts": 212.5,
        "power_limit_watts": 350.0,
    }


def test_unsupported_readings_of_a_gpu_are_missing_and_the_rest_is_reported(tmp_path: Path) -> None:
    partial = ask(fake_nvml(tmp_path))["0000:c2:00.0"]
    assert {name: value for name, value in partial.items() if value is not None} == {
        "uuid": "GPU-2",
        "pci_bus_id": "0000:c2:00.0",
        "driver_version": "580.65.06",
        "temperature_celsius": 47,
    }


def test_a_lost_gpu_hides_no_other(tmp_path: Path) -> None:
    assert list(ask(fake_nvml(tmp_path))) == ["0000:c1:00.0", "0000:c2:00.0"]


def test_a_driver_that_fails_gives_no_readings(tmp_path: Path) -> None:
    assert ask(fake_nvml(tmp_path, INIT=LIB_RM_VERSION_MISMATCH)) == {}


def test_a_library_that_cannot_be_loaded_gives_no_readings(tmp_path: Path) -> None:
    assert ask(broken_nvml(tmp_path)) == {}


def test_a_driver_that_hangs_is_abandoned(tmp_path: Path) -> None:
    assert ask(fake_nvml(tmp_path, HANGS_AT=0), IMPATIENTLY) == {}


def test_a_gpu_that_hangs_does_not_hide_those_before_it(tmp_path: Path) -> None:
    assert list(ask(fake_nvml(tmp_path, HANGS_AT=2), UNTIL_SOME_ARE_FOUND)) == ["0000:c1:00.0"]
