"""The check of machines with a GPU: its verdicts and its order, with doubles of the driver and of the server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.gpu_check import checks
from tests.gpu_check.gpu_memory import GpuUse, taken
from tests.gpu_check.verdicts import (
    CUDA_CONTEXT,
    GIB,
    Loaded,
    Outcome,
    Row,
    all_passed,
    judge_batching,
    judge_estimate,
    judge_offload,
    judge_pin,
    judge_texts,
)

PASSED, FAILED, SKIPPED, SHOWN = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.SHOWN
LAYERS = 25
ON_SECOND = Loaded(pid=7, visible="1", reported_layers=LAYERS, grown=[0, GIB], used_by=[1])


@pytest.mark.parametrize(
    ("expected", "changes", "outcome"),
    [
        (1, {}, PASSED),
        (0, {}, FAILED),
        (None, {}, FAILED),
        (1, {"visible": "0,1"}, FAILED),
        (1, {"grown": [GIB, GIB]}, FAILED),
        (1, {"used_by": []}, FAILED),
        (1, {"used_by": [], "lists_processes": False}, PASSED),
        (None, {"visible": "-1", "grown": [0, 0], "used_by": []}, PASSED),
    ],
)
def test_a_pin_holds_if_environment_memory_and_process_agree(
    expected: int | None, changes: dict[str, Any], outcome: Outcome
) -> None:
    assert judge_pin("a device", expected, replace(ON_SECOND, **changes)).outcome is outcome


def loads(figures: Sequence[tuple[int, float, float]]) -> dict[str, Loaded]:
    """By what was requested: layers on the GPU, GiB there, tokens/s."""
    return {
        name: Loaded(1, "0", layers, [round(gib * GIB)], [0], tokens_per_second=speed)
        for name, (layers, gib, speed) in zip(("0", "half", "all"), figures, strict=True)
    }


@pytest.mark.parametrize(
    ("figures", "failed"),
    [
        ([(0, 0.3, 10), (12, 1, 20), (LAYERS, 2, 90)], []),
        ([(0, 0.3, 10), (12, 1, 20), (24, 2, 90)], ["all"]),
        ([(0, 1.5, 10), (12, 1, 20), (LAYERS, 2, 90)], ["0 layers", "half"]),
        ([(0, 0.3, 10), (12, 1, 20), (LAYERS, 2, 9)], ["speed rises"]),
    ],
)
def test_more_layers_take_more_memory_and_are_faster(figures: list[Any], failed: list[str]) -> None:
    rows = judge_offload(loads(figures), LAYERS)
    assert [row.setting for row in rows if row.outcome is FAILED] == failed


@pytest.mark.parametrize(
    ("estimated", "measured", "outcome"),
    [(4, 4, PASSED), (4, 4 + CUDA_CONTEXT / GIB, PASSED), (4, 5.1, FAILED), (6, 4, PASSED), (6.1, 4, FAILED)],
)
def test_an_estimate_is_neither_too_low_nor_far_too_high(estimated: float, measured: float, outcome: Outcome) -> None:
    load = replace(ON_SECOND, grown=[0, round(measured * GIB)])
    assert judge_estimate("a setting", round(estimated * GIB), load).outcome is outcome


def test_without_a_llama_server_batching_is_skipped_and_says_so() -> None:
    row = judge_batching(8, 100.0, None)
    assert (row.outcome, "LLAMA_SERVER is not set" in row.figures) == (SKIPPED, True)
    assert [judge_batching(8, ours, 100.0).outcome for ours in (89.0, 90.0)] == [FAILED, PASSED]


def test_repetition_is_required_and_company_is_shown() -> None:
    assert [row.outcome for row in judge_texts(["a", "b"], ["a", "b"], ["a", "c"])] == [PASSED, SHOWN]
    assert [row.outcome for row in judge_texts(["a", "b"], ["a", "c"], ["a", "b"])] == [FAILED, SHOWN]
    assert judge_texts([], [], [])[0].outcome is FAILED


def test_a_run_passes_if_something_passed_and_nothing_failed() -> None:
    def rows(*outcomes: Outcome) -> list[Row]:
        return [Row("", "", "", outcome) for outcome in outcomes]

    assert all_passed(rows(PASSED, SKIPPED, SHOWN))
    assert not any(map(all_passed, (rows(), rows(SKIPPED, SHOWN), rows(PASSED, FAILED))))


def test_growth_is_counted_by_gpu() -> None:
    before = [GpuUse("x", GIB, 100), GpuUse("x", GIB, 200)]
    assert taken(before, [replace(before[0], used=150), before[1]]) == [50, 0]


class FakeSubject:
    """A server on a machine with two GPUs, where everything holds, except that it has no device `missing`."""

    def __init__(self, missing: str = "") -> None:
        self._missing = missing
        self._layers = 0

    @asynccontextmanager
    async def loaded(self, *, device: str, gpu_layers: int = LAYERS, **settings: Any) -> AsyncIterator[Loaded]:
        if device == self._missing:
            raise RuntimeError("no such device")
        gpu = None if device == "cpu" else int(device.removeprefix("cuda:"))
        self._layers = gpu_layers
        grown = [GIB * gpu_layers if number == gpu else 0 for number in range(2)]
        yield Loaded(1, "-1" if gpu is None else str(gpu), gpu_layers, grown, [] if gpu is None else [gpu])

    async def tokens_per_second(self, streams: int, tokens: int) -> float:
        return 10.0 * streams + self._layers

    async def texts(self, prompts: Sequence[str], tokens: int, *, at_once: bool) -> list[str]:
        return list(prompts)


async def rows_of(subject: FakeSubject, seconds: float = 60.0) -> list[Row]:
    async def peer() -> dict[int, float]:
        return {streams: 10.0 * streams for streams in checks.STREAMS}

    return await checks.run_checks(
        {
            "pinning": lambda: checks.pinning(subject, 2),
            "offload": lambda: checks.offload(subject, LAYERS),
            "batching": lambda: checks.batching(subject, peer),
            "reproducible": lambda: checks.reproducibility(subject),
        },
        seconds,
    )


async def test_all_checks_pass_where_everything_holds() -> None:
    rows = await rows_of(FakeSubject())
    assert [row.check for row in rows] == ["pinning"] * 3 + ["offload"] * 4 + ["batching"] * 3 + ["reproducible"] * 2
    assert [row.outcome for row in rows] == [PASSED] * 11 + [SHOWN]


async def test_a_check_that_ends_with_an_error_does_not_prevent_the_others() -> None:
    rows = await rows_of(FakeSubject(missing="cuda:1"))
    failed = [(row.check, row.figures) for row in rows if row.outcome is FAILED]
    assert failed == [("pinning", "RuntimeError: no such device")]
    assert {row.check for row in rows if row.outcome is PASSED} >= {"offload", "batching", "reproducible"}


async def test_checks_that_there_is_no_time_for_have_failed() -> None:
    rows = await rows_of(FakeSubject(), seconds=0)
    assert [(row.check, row.outcome) for row in rows] == [
        (name, FAILED) for name in ("pinning", "offload", "batching", "reproducible")
    ]
