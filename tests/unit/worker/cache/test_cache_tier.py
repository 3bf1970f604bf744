"""The batcher with a second cache tier: evicted states are restored unchanged."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from atelier.errors import DecodeFailed
from tests.support.worker.batching import Batching, Call, SteadyCosts, solo
from worker.engine.cache import cache_tier as module
from worker.engine.cache import state_directory
from worker.engine.cache.ram_limit import RamLimit
from worker.engine.cache.state_directory import StateDirectory

PLENTY = 10**6  # bytes
CELL = 20  # bytes of a token in the fake context's states
GRID = 64


def prompt(kind: int, length: int) -> tuple[int, ...]:
    """Different kinds differ from the first token on."""
    return tuple((kind * 31 + at * 7) % 200 + 20 for at in range(length))


CHATS = [prompt(kind, 150 + kind) for kind in range(4)]


def cached(call: Call) -> int:
    return call.finished[0].statistics.cached_tokens


def run(batching: Batching, tokens: tuple[int, ...], **options: Any) -> Call:
    """Runs a call and checks that its tokens are those it has when it runs alone."""
    call = batching.submit(tokens, **options)
    batching.finish()
    assert call.tokens() == solo(tokens)
    return call


def test_an_evicted_prompt_is_restored_from_ram() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    assert [cached(run(batching, chat)) for chat in CHATS] == [0] * 4
    assert [cached(run(batching, chat)) for chat in CHATS] == [2 * GRID] * 4


def test_a_cache_that_makes_way_loses_its_oldest_states() -> None:
    batching = Batching(1, cache_ram=PLENTY, limit=RamLimit(PLENTY, makes_way=True, free=lambda: 8 * PLENTY))
    assert batching.tier is not None
    for chat in CHATS:
        run(batching, chat)
    used = batching.tier.ram_used
    assert batching.tier.make_way(1) > 0
    assert 0 < batching.tier.ram_used < used
    assert [cached(run(batching, chat)) for chat in (CHATS[2], CHATS[0])] == [2 * GRID, 0]
    assert batching.tier.make_way(PLENTY) > 0
    assert batching.tier.ram_used == 0


def test_a_cache_shrinks_when_other_programs_take_the_memory() -> None:
    free = [8 * PLENTY]
    batching = Batching(1, cache_ram=PLENTY, limit=RamLimit(PLENTY, makes_way=True, free=lambda: free[0]))
    assert batching.tier is not None
    for chat in CHATS[:3]:
        run(batching, chat)
    assert batching.tier.ram_used > 0
    free[0] = 0
    run(batching, CHATS[3])
    assert batching.tier.ram_used == 0
    assert batching.tier.ram_limit == PLENTY


def test_a_cache_that_makes_way_moves_its_states_to_the_disk(opened: "Opened") -> None:
    limit = RamLimit(PLENTY, makes_way=True, free=lambda: 8 * PLENTY)
    batching = Batching(1, cache_ram=PLENTY, cache_disk=PLENTY, directory=opened(), limit=limit)
    assert batching.tier is not None
    for chat in CHATS:
        run(batching, chat)
    assert batching.tier.make_way(PLENTY) > 0
    assert batching.tier.ram_used == 0
    assert [cached(run(batching, chat)) for chat in CHATS[:3]] == [2 * GRID] * 3


def test_without_a_tier_an_evicted_prompt_is_recomputed() -> None:
    batching = Batching(1)
    assert [cached(run(batching, chat)) for chat in (*CHATS, *CHATS)] == [0] * 8


def test_a_longer_prompt_continues_a_saved_state() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    run(batching, CHATS[0])
    run(batching, CHATS[1])
    assert cached(run(batching, CHATS[0] + prompt(7, 100))) == 2 * GRID


def test_a_saved_state_is_truncated_to_the_shared_prefix() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    run(batching, CHATS[0])
    run(batching, CHATS[1])
    assert cached(run(batching, CHATS[0][:100] + prompt(7, 100))) == GRID


def test_a_prompt_held_by_another_slot_is_not_saved() -> None:
    batching = Batching(2, cache_ram=PLENTY)
    batching.submit(CHATS[0], choices=2)
    batching.finish()
    run(batching, CHATS[1])
    assert batching.context.saved == []
    run(batching, CHATS[2])
    assert len(batching.context.saved) == 1


def test_a_saved_prompt_is_not_saved_again() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    for chat in (*CHATS[:2], *CHATS[:2], *CHATS[:2]):
        run(batching, chat)
    assert len(batching.context.saved) == 2


def test_a_longer_state_replaces_its_prefix() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    run(batching, CHATS[0])
    run(batching, CHATS[1])
    run(batching, CHATS[0] + prompt(7, 100))
    run(batching, CHATS[2])
    assert len(batching.states) == 2, "the longer chat, and the other one"


def test_the_slot_of_a_running_sequence_is_copied_rather_than_a_state_restored() -> None:
    batching = Batching(2, cache_ram=PLENTY)
    for chat in CHATS[:3]:
        run(batching, chat)
    call = batching.submit(CHATS[0], max_tokens=30)
    while not call.counts[0]:
        batching.step()
    restored = len(batching.context.restored)
    assert cached(run(batching, CHATS[0])) == 2 * GRID
    assert len(batching.context.restored) == restored == 1


def test_ram_is_limited_and_evicts_the_least_recently_used() -> None:
    batching = Batching(1, cache_ram=2 * (2 * GRID * CELL + 900))
    for chat in CHATS:
        run(batching, chat)
    assert len(batching.states) == 2
    assert [cached(run(batching, CHATS[kind])) for kind in (1, 2, 0)] == [2 * GRID, 0, 0], "1 was wanted, so 2 went"


def test_nothing_is_saved_where_computing_is_as_fast() -> None:
    batching = Batching(1, cache_ram=PLENTY, costs=SteadyCosts(token_seconds=1e-9))
    for chat in CHATS:
        run(batching, chat)
    assert batching.context.saved == []


def test_nothing_is_restored_where_computing_is_as_fast() -> None:
    costs = SteadyCosts(token_seconds=0.001)
    batching = Batching(1, cache_ram=PLENTY, costs=costs)
    run(batching, CHATS[0])
    run(batching, CHATS[1])
    vars(costs)["token_seconds"] = 1e-9
    assert cached(run(batching, CHATS[0])) == 0
    assert batching.context.restored == []


def test_a_state_that_cannot_be_restored_is_dropped_and_the_prompt_computed() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    run(batching, CHATS[0])
    run(batching, CHATS[1])
    batching.context.refuses_states = True
    with structlog.testing.capture_logs() as logs:
        assert cached(run(batching, CHATS[0])) == 0
    assert [entry["event"] for entry in logs] == ["cache_state_lost"]
    batching.context.refuses_states = False
    assert cached(run(batching, CHATS[1])) == 2 * GRID


@pytest.mark.parametrize("error", [DecodeFailed(), MemoryError()])
def test_a_state_that_cannot_be_saved_causes_no_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    batching = Batching(1, cache_ram=PLENTY)
    run(batching, CHATS[0])
    monkeypatch.setattr(batching.context, "state", _raising(error))
    run(batching, CHATS[1])
    assert len(batching.states) == 0
    assert cached(run(batching, CHATS[0])) == 0


def _raising(error: Exception) -> Callable[[int], Any]:
    def state(slot: int) -> Any:
        raise error

    return state


def test_tokens_of_a_failed_sequence_are_not_saved() -> None:
    batching = Batching(1, cache_ram=PLENTY)
    batching.context.fails = lambda call: call.kind == "next"
    batching.submit(CHATS[0])
    batching.finish()
    batching.context.fails = lambda call: False
    run(batching, CHATS[1])
    assert batching.context.saved == []


# The disk.


@pytest.fixture
def opened(tmp_path: Path) -> "Opened":
    """Opens the directory as one worker after another does."""
    return lambda: StateDirectory(tmp_path / "cache", b"o" * 32)


Opened = Callable[[], StateDirectory]


def unload(batching: Batching) -> None:
    batching.batcher.abandon()
    batching.batcher.close()


def on_disk(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache").glob("*.kv")))


@pytest.mark.parametrize("ram", [0, PLENTY])
def test_a_prompt_is_restored_in_the_next_worker(ram: int, opened: Opened, tmp_path: Path) -> None:
    first = Batching(2, cache_ram=ram, cache_disk=PLENTY, directory=opened())
    for chat in CHATS:
        run(first, chat)
    unload(first)
    assert on_disk(tmp_path) == len(CHATS), "those in the slots too"
    second = Batching(1, cache_ram=ram, cache_disk=PLENTY, directory=opened())
    assert [cached(run(second, chat)) for chat in CHATS] == [2 * GRID] * 4
    unload(second)


def test_a_state_evicted_from_ram_is_restored_from_disk(opened: Opened) -> None:
    batching = Batching(1, cache_ram=2 * GRID * CELL + 900, cache_disk=PLENTY, directory=opened())
    for chat in CHATS:
        run(batching, chat)
    assert [cached(run(batching, chat)) for chat in CHATS] == [2 * GRID] * 4
    unload(batching)


def test_disk_use_is_limited(opened: Opened, tmp_path: Path) -> None:
    batching = Batching(1, cache_disk=2 * (2 * GRID * CELL + 900), directory=opened())
    for chat in CHATS:
        run(batching, chat)
    unload(batching)
    assert on_disk(tmp_path) == 2


def test_a_lower_disk_limit_keeps_the_most_recently_used(opened: Opened, tmp_path: Path) -> None:
    first = Batching(1, cache_disk=PLENTY, directory=opened())
    for chat in CHATS:
        run(first, chat)
    unload(first)
    second = Batching(1, cache_disk=2 * GRID * CELL + 900, directory=opened())
    assert len(second.states) == 1
    assert cached(run(second, CHATS[3])) == 2 * GRID
    unload(second)
    assert on_disk(tmp_path) == 1


def test_the_next_worker_keeps_the_most_recently_used(opened: Opened) -> None:
    room = 2 * (2 * GRID * CELL + 900)
    first = Batching(1, cache_ram=PLENTY, cache_disk=PLENTY, directory=opened())
    for kind in (0, 1, 2, 3, 1):
        run(first, CHATS[kind])
    unload(first)
    second = Batching(1, cache_disk=room, directory=opened())
    assert [cached(run(second, CHATS[kind])) for kind in (1, 3)] == [2 * GRID] * 2
    unload(second)


def test_shutdown_does_not_wait_for_the_disk(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(state_directory, "write_state", lambda *arguments: answers.wait(10))
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    batching = Batching(1, cache_ram=PLENTY, cache_disk=PLENTY, directory=opened())
    for chat in CHATS:
        run(batching, chat)
    with structlog.testing.capture_logs() as logs:
        unload(batching)
    answers.set()
    assert logs[-1]["states"] == len(batching.states) == 0


def test_other_sequences_continue_while_a_prompt_waits_for_the_disk(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Batching(1, cache_disk=PLENTY, directory=opened())
    run(first, CHATS[0])
    unload(first)
    directory = opened()
    second = Batching(2, cache_disk=PLENTY, directory=directory)
    real, slow = directory.read, True
    monkeypatch.setattr(directory, "read", lambda *arguments: None if slow else real(*arguments))
    waiting = second.submit(CHATS[0])
    other = second.submit(CHATS[1])
    while not other.complete:
        second.step()
    assert waiting.counts == [0]
    slow = False
    second.finish()
    assert (waiting.tokens(), cached(waiting)) == (solo(CHATS[0]), 2 * GRID)
    unload(second)


def test_a_call_that_is_cancelled_while_it_waits_for_the_disk_frees_its_slot(opened: Opened) -> None:
    first = Batching(1, cache_disk=PLENTY, directory=opened())
    run(first, CHATS[0])
    unload(first)
    directory = opened()
    second = Batching(1, cache_disk=PLENTY, directory=directory)
    waiting = second.submit(CHATS[0])
    directory.read = lambda *arguments: None  # type: ignore[method-assign]
    second.step()
    waiting.cancel()
    second.finish()
    assert not waiting.finished
    assert second.free_slots() == 1
    unload(second)


def test_a_corrupt_file_loses_only_its_own_prefix(opened: Opened, tmp_path: Path) -> None:
    first = Batching(1, cache_disk=PLENTY, directory=opened())
    run(first, CHATS[0])
    unload(first)
    second = Batching(1, cache_disk=PLENTY, directory=opened())
    (file,) = (tmp_path / "cache").glob("*.kv")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert cached(run(second, CHATS[0])) == 0
    run(second, CHATS[1])
    assert cached(run(second, CHATS[0])) == 2 * GRID, "it was saved anew"
    unload(second)


def test_statistics_are_logged_at_shutdown(opened: Opened) -> None:
    batching = Batching(1, cache_ram=PLENTY, cache_disk=PLENTY, directory=opened())
    for chat in (*CHATS[:2], CHATS[0]):
        run(batching, chat)
    with structlog.testing.capture_logs() as logs:
        unload(batching)
    (closed,) = (entry for entry in logs if entry["event"] == "cache_tier_closed")
    assert (closed["saved"], closed["hits"], closed["restored_tokens"], closed["states"]) == (2, 1, 2 * GRID, 2)
    assert closed["disk_bytes"] > 0
    assert closed["ram_bytes"] == 0
