"""The checks, one after the other, within a limit of time."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from atelier.machine_memory import machine_memory
from atelier.settings import Load
from registry.devices.compute_device import CPU, Device
from registry.devices.manual_placement import choice_of, lay_out
from registry.devices.placement import MemoryNeed
from registry.models.memory_estimate import estimate_memory
from registry.models.split_files import read_facts
from tests.gpu_check.gpu_memory import GpuUse
from tests.gpu_check.verdicts import (
    Loaded,
    Outcome,
    Row,
    judge_batching,
    judge_estimate,
    judge_offload,
    judge_pin,
    judge_texts,
)

STREAMS = (1, 8, 32)
TOKENS = 64  # of each stream
CONTEXT = 2048  # tokens of a sequence
PROMPTS = [f"Write a sentence about the number {number}." for number in range(8)]
SPREAD = {  # settings whose estimates are compared with what is taken
    "context 2048 x 1": {"context_length": 2048, "parallel": 1},
    "context 8192 x 8": {"context_length": 8192, "parallel": 8},
    "q8_0 cache": {"context_length": 8192, "parallel": 8, "kv_type": "q8_0"},
    "no flash attention": {"context_length": 2048, "parallel": 4, "flash_attention": False},
}


class Subject(Protocol):
    """The server under check."""

    def loaded(self, **settings: Any) -> AbstractAsyncContextManager[Loaded]: ...

    async def tokens_per_second(self, streams: int, tokens: int) -> float: ...

    async def texts(self, prompts: Sequence[str], tokens: int, *, at_once: bool) -> list[str]: ...


PeerSpeeds = Callable[[], Awaitable[Mapping[int, float] | None]]
"""Tokens/s of llama-server by number of streams; None if there is no llama-server."""


async def pinning(subject: Subject, gpus: int) -> AsyncIterator[Row]:
    """Every GPU, and none."""
    for expected in (*range(gpus), None):
        device = "cpu" if expected is None else f"cuda:{expected}"
        async with subject.loaded(device=device, context_length=CONTEXT, parallel=1) as load:
            yield judge_pin(device, expected, load)


async def offload(subject: Subject, layers: int) -> AsyncIterator[Row]:
    """`layers`: of the model, its output included."""
    loads = {}
    for name, count in (("0", 0), ("half", layers // 2), ("all", layers)):
        async with subject.loaded(device="cuda:0", gpu_layers=count, context_length=CONTEXT, parallel=1) as load:
            speed = await subject.tokens_per_second(1, TOKENS)
            loads[name] = replace(load, tokens_per_second=speed)
    for row in judge_offload(loads, layers):
        yield row


async def estimates(subject: Subject, model: Path, gpus: Sequence[GpuUse]) -> AsyncIterator[Row]:
    for name, settings in SPREAD.items():
        async with subject.loaded(device="cuda:0", **settings) as load:
            yield judge_estimate(name, estimated_on_gpus(model, gpus, settings), load)


async def batching(subject: Subject, peer: PeerSpeeds) -> AsyncIterator[Row]:
    speeds = {}
    async with subject.loaded(device="cuda:0", context_length=CONTEXT, parallel=max(STREAMS)):
        await subject.tokens_per_second(max(STREAMS), TOKENS)  # warms up
        for streams in STREAMS:
            speeds[streams] = await subject.tokens_per_second(streams, TOKENS)
    theirs = await peer()
    for streams, speed in speeds.items():
        yield judge_batching(streams, speed, None if theirs is None else theirs[streams])


async def reproducibility(subject: Subject) -> AsyncIterator[Row]:
    settings = {"device": "cuda:0", "context_length": CONTEXT, "parallel": len(PROMPTS), "reproducible": True}
    async with subject.loaded(cache_ram=0, **settings):
        alone = await subject.texts(PROMPTS, TOKENS, at_once=False)
    async with subject.loaded(cache_ram=0, **settings):
        again = await subject.texts(PROMPTS, TOKENS, at_once=False)
    async with subject.loaded(cache_ram=0, **settings):
        beside = await subject.texts(PROMPTS, TOKENS, at_once=True)
    for row in judge_texts(alone, again, beside):
        yield row


async def run_checks(checks: Mapping[str, Callable[[], AsyncIterator[Row]]], seconds: float) -> list[Row]:
    """The rows of all checks. One that fails with an error, or that there is no time for, is a failed row."""
    rows: list[Row] = []
    end = time.monotonic() + seconds
    for name, check in checks.items():
        if time.monotonic() >= end:
            rows.append(Row(name, "", f"not run: the {seconds:.0f} s are over", Outcome.FAILED))
            continue
        try:
            rows += [row async for row in check()]
        except Exception as error:  # the other checks are worth running
            rows.append(Row(name, "", f"{type(error).__name__}: {error}", Outcome.FAILED))
    return rows


def estimated_on_gpus(model: Path, gpus: Sequence[GpuUse], settings: Mapping[str, Any]) -> int:
    """Bytes on all GPUs, as placement computes them before it loads the model with these settings."""
    facts, load = read_facts(model), Load(device="cuda:0", **settings)
    assert facts.shape is not None
    devices = [Device(f"cuda:{number}", gpu.name, gpu.total, gpu.total - gpu.used) for number, gpu in enumerate(gpus)]
    choice = choice_of(load, devices)
    assert choice is not None
    need = MemoryNeed(estimate_memory(facts.shape, load), facts.layers)
    usable = {device.id: device.free for device in devices} | {CPU: machine_memory().total}
    memory = lay_out(need, choice, usable).memory
    return sum(size for device, size in memory.items() if device != CPU)
