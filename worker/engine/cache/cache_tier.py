"""The second tier of the prefix cache: saves what slots lose, in host memory and on disk, and restores it."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from atelier.errors import DecodeFailed
from atelier.launch import LaunchSpec
from worker.engine.cache.prefix_tree import Piece, beginning
from worker.engine.cache.ram_limit import RamLimit
from worker.engine.cache.saved_states import SavedPrefix, SavedStates
from worker.engine.cache.slot_contents import SlotContents
from worker.engine.cache.state_directory import StateDirectory
from worker.engine.cache.state_file import State, UnusableFile, file_size, state_identity
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs, Speed

MEMORY_SPEED = 1e9  # bytes/s, until it is measured
DISK_SPEED = 3e8
MIB = 2**20
READ_WAIT = 0.002  # seconds that a step waits for the disk, so that a lone prompt's steps do not spin
CLOSE_SECONDS = 2.0  # for writing at the end: the registry waits three

_log = structlog.get_logger(__name__)


class CacheTier:
    """Saves what a slot is about to lose, and restores prefixes of prompts that are longer than any slot holds.

    Used on the engine's thread alone. States are copied there, which takes milliseconds; threads
    of the directory write and read files. `_contents` are the states in RAM, and those still to be written.
    """

    def __init__(
        self,
        context: Context,
        costs: Costs,
        states: SavedStates,
        directory: StateDirectory | None = None,
        limit: RamLimit | None = None,
    ) -> None:
        """`limit`: of the states in RAM; None: as `states` has it."""
        self._context = context
        self._costs = costs
        self._states = states
        self._directory = directory
        self._limit = limit
        self._contents: dict[int, State] = {}
        self._saving = Speed(MEMORY_SPEED)
        self._restoring = Speed(MEMORY_SPEED)
        self._reading = Speed(DISK_SPEED)
        self._saved = self._hits = self._restored_tokens = 0
        self._adopt_stored()

    def save(self, slot: int, contents: SlotContents, prompt: Sequence[Piece] = ()) -> None:
        """Save what the slot is about to lose to this prompt, all but the prefix that both share.

        Not what another slot or a saved state has, nor what is as quickly computed again.
        A saved prefix of the prompt itself is not evicted for it.
        """
        self._collect_written()
        if (wanted := self._states.match(prompt)) is not None:
            self._states.touch(wanted.state)
        pieces, keeping = contents.savable(slot), contents.reusable(prompt).get(slot, 0)
        tokens = sum(map(len, pieces))
        if tokens <= keeping or contents.elsewhere(slot, pieces):
            return
        if (state := self._states.covering(pieces)) is not None:
            self._states.touch(state)
            return
        if self._worth_saving(self._context.state_size(slot), tokens - keeping):
            try:
                contents.resume(slot, tokens)  # what follows cannot be reused
            except DecodeFailed as error:
                _log.warning("cache_state_not_saved", reason=str(error))
            else:
                self._keep(slot, pieces, file_size(pieces, self._context.state_size(slot)))

    def _worth_saving(self, size: int, tokens: int) -> bool:
        return self._saving.seconds(size) + self._restoring.seconds(size) < tokens * self._costs.token_seconds

    def restore(self, slot: int, prompt: Sequence[Piece], contents: SlotContents) -> bool:
        """Put the longest saved prefix of the prompt into its slot, where that is worth the time.

        False while it is read from the disk: call again at the next step.
        """
        self._collect_written()
        known = contents.match(prompt).claimed
        found = self._states.match(prompt)
        if found is None or not self._worth_restoring(found, known):
            return True
        try:
            content = self._content(found)
            if content is None:
                return False
            self._put(slot, content, found, prompt, contents)
        except (UnusableFile, DecodeFailed) as error:
            _log.warning("cache_state_lost", reason=str(error) or "its file is missing or damaged", tokens=found.tokens)
            self._forget(found.state)
        return True

    @property
    def ram_used(self) -> int:
        """Bytes of the states in RAM."""
        return self._states.ram.used

    @property
    def ram_limit(self) -> int:
        """Bytes that they may take at most."""
        return self._limit.most if self._limit is not None else self._states.ram.capacity

    def make_way(self, size: int) -> int:
        """Free so many bytes of RAM for another model, as far as the limit makes way; returns what was freed."""
        before = self.ram_used
        if self._limit is not None:
            self._limit_ram(self._limit.make_way(before, size))
        return before - self.ram_used

    def close(self, slots: Sequence[int], contents: SlotContents) -> None:
        """Write what the slots and RAM hold to the disk, as far as time allows.

        `slots`: the least recently used first.
        """
        if self._directory is not None:
            self._write_all(self._directory, slots, contents)
        _log.info(
            "cache_tier_closed",
            ram_bytes=self._states.ram.used,
            disk_bytes=self._states.disk.used,
            states=len(self._states),
            saved=self._saved,
            hits=self._hits,
            restored_tokens=self._restored_tokens,
        )
        if self._directory is not None:
            self._directory.close(list(self._states.disk.sizes))

    def _adopt_stored(self) -> None:
        if self._directory is None:
            return
        for stored in self._directory.stored():
            changes = self._states.adopt(stored.pieces, stored.size)
            if changes is None or changes.state is None:
                self._directory.discard(stored.path)
                continue
            self._directory.adopt(changes.state, stored.path)
            self._drop(changes.dropped)
        _log.info("cache_tier_opened", disk_bytes=self._states.disk.used, states=len(self._states))

    # Saving.

    def _keep(self, slot: int, pieces: Sequence[Piece], size: int) -> None:
        if self._limit is not None:
            self._limit_ram(self._limit.now(self.ram_used))
        if (changes := self._states.add(pieces, size)) is None:
            return
        assert changes.state is not None
        self._drop(changes.dropped)  # first: the new one needs their memory
        try:
            with self._saving.measure(size):
                self._contents[changes.state] = self._context.state(slot)
        except (DecodeFailed, MemoryError) as error:
            _log.warning("cache_state_not_saved", reason=str(error))
            self._states.remove(changes.state)
        else:
            self._saved += 1
        for state in changes.written:
            self._write(state)

    def _limit_ram(self, capacity: int) -> None:
        changes = self._states.limit_ram(capacity)
        self._drop(changes.dropped)
        for state in changes.written:
            self._write(state)

    def _drop(self, states: Iterable[int]) -> None:
        for state in states:
            self._contents.pop(state, None)
            if self._directory is not None:
                self._directory.delete(state)

    def _write(self, state: int) -> None:
        assert self._directory is not None
        content = self._contents.get(state)
        if content is None or not self._directory.write(state, self._states.pieces(state), content):
            self._forget(state)

    def _collect_written(self) -> None:
        """Drop the contents of written states from memory, and forget states whose write failed."""
        if self._directory is None:
            return
        for state, succeeded in self._directory.written():
            self._contents.pop(state, None)
            if not succeeded:
                self._forget(state)

    def _forget(self, state: int) -> None:
        self._states.remove(state)
        self._drop([state])

    def _write_all(self, directory: StateDirectory, slots: Sequence[int], contents: SlotContents) -> None:
        """The slots first, then the states in RAM, one after another: memory has no room for all at once."""
        deadline = time.monotonic() + CLOSE_SECONDS
        changes = self._states.settle()
        self._limit = None  # RAM keeps no state from now on
        self._drop(changes.dropped)
        self._wait_for_directory(directory, deadline)
        for slot in self._affordable(slots):
            self.save(slot, contents)
            self._wait_for_directory(directory, deadline)
        for state in reversed(changes.written):
            if state in self._contents:
                self._write(state)
                self._wait_for_directory(directory, deadline)
        for state in list(self._contents):  # there was no time for these
            self._forget(state)

    def _affordable(self, slots: Sequence[int]) -> Sequence[int]:
        """As many of the most recently used slots as can be saved and written in time."""
        seconds = 0.0
        for count, slot in enumerate(reversed(slots)):
            size = self._context.state_size(slot)
            seconds += self._saving.seconds(size) + self._reading.seconds(size)  # writing is no slower than reading
            if seconds > CLOSE_SECONDS:
                return slots[len(slots) - count :]
        return slots

    def _wait_for_directory(self, directory: StateDirectory, deadline: float) -> None:
        directory.wait(deadline)
        self._collect_written()

    # Restoring.

    def _worth_restoring(self, found: SavedPrefix, known: int) -> bool:
        seconds = self._restoring.seconds(found.size)
        if found.state not in self._contents:
            seconds += self._reading.seconds(found.size)
        return seconds < (found.tokens - known) * self._costs.token_seconds

    def _content(self, found: SavedPrefix) -> State | None:
        """The state's bytes; None while they are read. Raises UnusableFile when they are lost."""
        if found.state in self._contents:
            return self._contents[found.state]
        assert self._directory is not None
        read = self._directory.read(found.state, self._states.pieces(found.state), READ_WAIT)
        if read is None:
            return None
        self._reading.add(found.size, read.seconds)
        return read.state

    def _put(
        self, slot: int, content: State, found: SavedPrefix, prompt: Sequence[Piece], contents: SlotContents
    ) -> None:
        with self._restoring.measure(found.size):
            contents.restore(slot, beginning(prompt, found.tokens), content)
        self._states.touch(found.state)
        self._hits += 1
        self._restored_tokens += found.tokens


def open_tier(
    spec: LaunchSpec, context: Context, costs: Costs, *, reuse: bool, whole: bool, gpu_layers: int, devices: list[str]
) -> CacheTier | None:
    """The tier of the settings, with the states that earlier workers left; None, and a warning if it cannot be used.

    `reuse`: prompts stay in their slots. `whole`: saved states cannot be cut, and are of use at their ends alone.
    """
    load = spec.load
    if load.cache_ram == 0 and not load.cache_disk:
        return None
    sized = load.cache_ram is None or spec.cache_sized
    if not reuse:
        if load.cache_disk or not sized:  # requested
            why = "kv_unified shares one cache" if load.kv_unified else "a sliding window's cells are not reproducible"
            _log.warning("cache_tier_off", reason=f"{why}, so no saved prefix of a prompt can be reused")
        return None
    limit = RamLimit(None if load.cache_ram is None else load.cache_ram * MIB, makes_way=sized)
    states = SavedStates(limit.most, load.cache_disk * MIB, whole=whole)
    if load.cache_disk:
        try:
            files = [spec.model_path, *(adapter.path for adapter in spec.adapters)]
            files += [spec.projector_path] if spec.projector_path else []
            identity = state_identity(files, load, gpu_layers=gpu_layers, devices=devices)
            directory = StateDirectory(_directory(spec), identity)
            return CacheTier(context, costs, states, directory, limit)
        except OSError as error:
            _log.warning("cache_disk_off", directory=spec.cache_dir, reason=str(error))
    return CacheTier(context, costs, SavedStates(limit.most, 0, whole=whole), limit=limit) if limit.most else None


def _directory(spec: LaunchSpec) -> Path:
    if not spec.cache_dir:
        raise FileNotFoundError("the launch specification names no directory")
    return Path(spec.cache_dir)
