"""The second tier of the prefix cache: what slots lose is saved, in host memory and on the disk, and put back."""

import time
from collections.abc import Iterable, Sequence

import structlog

from atelier.errors import DecodeFailed
from worker.engine.cache.prefix_tree import Piece, PrefixTree, beginning
from worker.engine.cache.saved_states import Found, SavedStates
from worker.engine.cache.state_directory import StateDirectory
from worker.engine.cache.state_file import State, UnusableFile, file_size
from worker.engine.model.context import Context
from worker.engine.model.decode_costs import Costs, Speed

MEMORY_SPEED = 1e9  # bytes/s, until it is measured
DISK_SPEED = 3e8
PATIENCE = 0.002  # seconds that a step waits for the disk, so that a lone prompt's steps do not spin
CLOSE_SECONDS = 2.0  # for writing at the end: the registry waits three

_log = structlog.get_logger(__name__)


class CacheTier:
    """Saves what a slot is about to lose, and puts a longer beginning of a prompt into its slot than any slot has.

    Used on the engine's thread alone. A state is copied there, which takes milliseconds; files are
    written and read by threads of the directory's own. `_contents` are the states in RAM, and those
    on their way to the disk.
    """

    def __init__(
        self, context: Context, costs: Costs, states: SavedStates, directory: StateDirectory | None = None
    ) -> None:
        self._context = context
        self._costs = costs
        self._states = states
        self._directory = directory
        self._contents: dict[int, State] = {}
        self._saving = Speed(MEMORY_SPEED)
        self._restoring = Speed(MEMORY_SPEED)
        self._reading = Speed(DISK_SPEED)
        self._saved = self._hits = self._restored_tokens = 0
        self._adopt_stored()

    def save(self, slot: int, prefixes: PrefixTree, prompt: Sequence[Piece] = ()) -> None:
        """The slot is about to lose what it holds, but for a beginning of the prompt that comes into it.

        It is saved unless another slot or a saved state has it, or computing it again is as quick.
        What is saved of the prompt itself does not make room for it.
        """
        self._collect_written()
        if (wanted := self._states.match(prompt)) is not None:
            self._states.touch(wanted.state)
        held, keeping = prefixes.tokens(slot), prefixes.common(slot, prompt)
        pieces = prefixes.pieces(slot)
        if held <= keeping or prefixes.match(pieces).holders != {slot}:
            return
        if (state := self._states.covering(pieces)) is not None:
            self._states.touch(state)
            return
        self._context.keep_prefix(slot, held)  # nobody can go on from what is after it
        size = file_size(pieces, self._context.state_size(slot))
        if self._saving.seconds(size) + self._restoring.seconds(size) < (held - keeping) * self._costs.token_seconds:
            self._keep(slot, pieces, size)

    def restore(self, slot: int, prompt: Sequence[Piece], prefixes: PrefixTree) -> bool:
        """Put the longest saved beginning of the prompt into the slot that it has, where that is worth it.

        False: it is still being read from the disk; ask again at the next step.
        """
        self._collect_written()
        known = max(prefixes.tokens(slot), prefixes.match(prompt).claimed)
        found = self._states.match(prompt)
        if found is None or not self._worth_restoring(found, known):
            return True
        try:
            content = self._content(found)
            if content is None:
                return False
            self._put(slot, content, found, prompt, prefixes)
        except (UnusableFile, DecodeFailed) as error:
            _log.warning("cache_state_lost", reason=str(error) or "its file is gone or spoilt", tokens=found.tokens)
            self._forget(found.state)
        return True

    def close(self, slots: Sequence[int], prefixes: PrefixTree) -> None:
        """What the slots and RAM hold goes to the disk, as far as there is time.

        `slots`: the one unused for longest first.
        """
        if self._directory is not None:
            self._write_all(self._directory, slots, prefixes)
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
        if (changes := self._states.add(pieces, size)) is None:
            return
        assert changes.state is not None
        self._drop(changes.dropped)  # before there is a new one: it needs their room
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
        """What is on the disk need not be in memory; what could not be written is in neither."""
        if self._directory is None:
            return
        for state, succeeded in self._directory.written():
            self._contents.pop(state, None)
            if not succeeded:
                self._forget(state)

    def _forget(self, state: int) -> None:
        self._states.remove(state)
        self._drop([state])

    def _write_all(self, directory: StateDirectory, slots: Sequence[int], prefixes: PrefixTree) -> None:
        """The slots first, then what is in RAM, one after another: memory has no room for all of them at once."""
        deadline = time.monotonic() + CLOSE_SECONDS
        changes = self._states.settle()
        self._drop(changes.dropped)
        self._wait_for_directory(directory, deadline)
        for slot in self._affordable(slots):
            self.save(slot, prefixes)
            self._wait_for_directory(directory, deadline)
        for state in reversed(changes.written):
            if state in self._contents:
                self._write(state)
                self._wait_for_directory(directory, deadline)
        for state in list(self._contents):  # there was no time for these
            self._forget(state)

    def _affordable(self, slots: Sequence[int]) -> Sequence[int]:
        """As many of the last slots as can be saved and written in the time that there is."""
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

    def _worth_restoring(self, found: Found, known: int) -> bool:
        seconds = self._restoring.seconds(found.size)
        if found.state not in self._contents:
            seconds += self._reading.seconds(found.size)
        return seconds < (found.tokens - known) * self._costs.token_seconds

    def _content(self, found: Found) -> State | None:
        """The state's bytes; None while they are being read. UnusableFile when they are lost."""
        if found.state in self._contents:
            return self._contents[found.state]
        assert self._directory is not None
        read = self._directory.read(found.state, self._states.pieces(found.state), PATIENCE)
        if read is None:
            return None
        self._reading.add(found.size, read.seconds)
        return read.state

    def _put(self, slot: int, content: State, found: Found, prompt: Sequence[Piece], prefixes: PrefixTree) -> None:
        prefixes.cut(slot, 0)
        with self._restoring.measure(found.size):
            self._context.put_state(slot, content)
        self._context.keep_prefix(slot, found.tokens)
        prefixes.hold(slot, beginning(prompt, found.tokens))
        self._states.touch(found.state)
        self._hits += 1
        self._restored_tokens += found.tokens
