"""What was measured, judged. Pure: figures in, rows of the table out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

MIB = 2**20
GIB = 2**30
IDLE_GROWTH = 64 * MIB  # of a GPU that a worker does not use, while other programs work
CUDA_CONTEXT = 1 * GIB  # most that CUDA itself takes for a process, which no estimate of a model contains
LARGEST_EXCESS = 1.5  # of an estimate over what was taken; more wastes the GPU
LEAST_RATIO = 0.9  # of llama-server's tokens/s


class Outcome(Enum):
    PASSED = "pass"
    FAILED = "FAIL"
    SKIPPED = "skipped"  # what it needs was not given
    SHOWN = "shown"  # a figure without a requirement


@dataclass(frozen=True, slots=True)
class Row:
    check: str
    setting: str
    figures: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Loaded:
    """One load of a model, as measured."""

    pid: int
    visible: str  # CUDA_VISIBLE_DEVICES of the worker's process
    reported_layers: int  # on GPUs, as the server reports it
    grown: Sequence[int]  # bytes by GPU that its load took
    used_by: Sequence[int]  # the GPUs on which the driver lists the worker's process
    lists_processes: bool = True  # whether the driver lists any process of this server: not from inside a container
    tokens_per_second: float = 0.0


def judge_pin(setting: str, expected: int | None, load: Loaded) -> Row:
    """`expected`: the GPU that the worker was pinned to; None: to none."""
    grown = [gpu for gpu, size in enumerate(load.grown) if size > IDLE_GROWTH]
    wanted = [] if expected is None else [expected]
    visible = "-1" if expected is None else str(expected)
    right = grown == wanted and load.visible == visible
    if load.lists_processes:
        right = right and list(load.used_by) == wanted
    where = f"process on GPU {list(load.used_by)}" if load.lists_processes else "processes are not listed here"
    figures = f"CUDA_VISIBLE_DEVICES={load.visible}, memory grew on GPU {grown}, {where}"
    return Row("pinning", setting, figures, _passed(right))


def judge_offload(loads: Mapping[str, Loaded], layers: int) -> list[Row]:
    """`loads`: with "0", "half" and "all" layers on the GPU; `layers`: of the model, its output included."""
    none, half, whole = (loads[name] for name in ("0", "half", "all"))
    memory = [sum(load.grown) for load in (none, half, whole)]
    rows = [
        _offload_row("0 layers", none, none.reported_layers == 0 and memory[0] < memory[1]),
        _offload_row("half", half, half.reported_layers == layers // 2 and memory[0] < memory[1] < memory[2]),
        _offload_row("all", whole, whole.reported_layers == layers and memory[1] < memory[2]),
    ]
    speeds = [load.tokens_per_second for load in (none, half, whole)]
    figures = " / ".join(f"{speed:.1f}" for speed in speeds) + " tokens/s"
    return [*rows, Row("offload", "speed rises", figures, _passed(speeds[0] < speeds[2] and speeds[1] < speeds[2]))]


def _offload_row(setting: str, load: Loaded, right: bool) -> Row:
    figures = f"{load.reported_layers} layers, {sum(load.grown) / MIB:.0f} MiB, {load.tokens_per_second:.1f} tokens/s"
    return Row("offload", setting, figures, _passed(right))


def judge_estimate(setting: str, estimated: int, load: Loaded) -> Row:
    """An estimate may not be lower than what the model takes, nor much higher."""
    measured = sum(load.grown)
    low = measured > estimated + CUDA_CONTEXT
    high = estimated > LARGEST_EXCESS * measured
    excess = (measured - estimated) / MIB
    figures = f"estimated {estimated / MIB:.0f} MiB, NVML {measured / MIB:.0f} MiB ({excess:+.0f})"
    return Row("estimate", setting, figures, _passed(not low and not high))


def judge_batching(streams: int, ours: float, peer: float | None) -> Row:
    """Tokens/s; `peer`: of llama-server, None if there is none."""
    setting = f"{streams} streams"
    if peer is None:
        return Row("batching", setting, f"{ours:.0f} tokens/s; LLAMA_SERVER is not set", Outcome.SKIPPED)
    ratio = ours / peer if peer else 0.0
    figures = f"{ours:.0f} tokens/s, llama-server {peer:.0f}: ratio {ratio:.2f}"
    return Row("batching", setting, figures, _passed(ratio >= LEAST_RATIO))


def judge_texts(alone: Sequence[str], again: Sequence[str], beside: Sequence[str]) -> list[Row]:
    """Texts at temperature 0 of the same prompts: alone, alone once more, and all at once.

    Only the repetition is required: elsewhere than on a CPU the company of other requests may change rounding.
    """
    repeated = sum(map(str.__eq__, alone, again))
    together = sum(map(str.__eq__, alone, beside))
    count = len(alone)
    return [
        Row("reproducible", "alone, twice", f"{repeated} of {count} the same", _passed(repeated == count > 0)),
        Row("reproducible", "alone and beside others", f"{together} of {count} the same", Outcome.SHOWN),
    ]


def all_passed(rows: Sequence[Row]) -> bool:
    return any(row.outcome is Outcome.PASSED for row in rows) and not any(row.outcome is Outcome.FAILED for row in rows)


def _passed(right: bool) -> Outcome:
    return Outcome.PASSED if right else Outcome.FAILED
