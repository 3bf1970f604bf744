"""A llama.cpp context: its parameters, the KV cache and the decode call. Used on the engine's thread alone."""

import contextlib
import ctypes
from collections.abc import Iterable, Sequence

import numpy as np
from llama_cpp import llama_cpp as ll
from numpy.typing import NDArray

from atelier.errors import DecodeFailed
from atelier.hardware import available_cores, physical_cores
from atelier.launch import LaunchSpec
from atelier.lora_adapters import Scales
from atelier.settings.groups import Load
from worker.engine.model.batch_invariance import Grouping, cache_types
from worker.engine.model.decode_run import PLANES, Image, Places, Run
from worker.engine.model.interrupt import Interrupt
from worker.engine.model.loaded_model import LlamaLog, LoadedModel, load_error
from worker.engine.model.lora import Adapters
from worker.engine.model.positions import Positions
from worker.engine.model.rope_scaling import set_rope

_KV_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip  # enum ggml_type
FLASH = {
    None: ll.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: ll.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: ll.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class DecodeInterrupted(Exception):
    """The call was ended on request: none of its tokens are in the cache."""


class Threads:
    """A fixed number of threads, or one for each physical core that this thread may use at the moment.

    The registry moves a worker between cores as other workers start and stop. Threads that share a core wait for one
    another at every operation of every layer. Where the number of threads changes the order of additions, and with it
    the text, it has to be fixed.
    """

    def __init__(self, fixed: int | None = None, batch: int | None = None) -> None:
        """`batch`: a fixed number for calls with more than one token; None: the same as for others."""
        self._fixed = fixed
        self._batch = batch
        self._cores: frozenset[int] = frozenset()
        self._count = 1

    @property
    def count(self) -> int:
        if self._fixed is not None:
            return self._fixed
        if (cores := available_cores()) != self._cores:
            self._cores, self._count = cores, len(physical_cores(cores))
        return self._count

    @property
    def batch_count(self) -> int:
        """For calls with more than one token."""
        return self._batch or self.count


def decode_threads(spec: LaunchSpec, grouping: Grouping) -> Threads:
    """For completing prompts. With one path through attention and one kernel, any number gives the same text."""
    return Threads(spec.load.threads, spec.load.threads_batch) if grouping.decode else fixed_threads(spec)


def fixed_threads(spec: LaunchSpec) -> Threads:
    """For results that depend on the number: as many as the worker has when it runs alone."""
    return Threads(spec.load.threads or spec.threads or Threads().count, spec.load.threads_batch)


def generation_params(load: Load, *, on_gpu: bool) -> ll.llama_context_params:
    """llama_context_params for completing prompts with these settings."""
    params = ll.llama_context_default_params()
    params.n_ctx = load.context_length * (1 if load.kv_unified else load.parallel)
    params.n_seq_max = load.parallel
    params.n_batch = max(load.batch_size, load.parallel)  # one token of each sequence must fit
    params.n_ubatch = min(load.ubatch_size, load.batch_size)
    params.n_threads = load.threads or Threads().count
    params.n_threads_batch = load.threads_batch or params.n_threads
    params.flash_attn_type = FLASH[load.flash_attention]
    params.type_k, params.type_v = (_KV_TYPES[name] for name in cache_types(load, on_gpu=on_gpu))
    params.offload_kqv = load.offload_kv
    params.kv_unified = load.kv_unified
    params.swa_full = load.swa_full
    set_rope(params, load)
    params.no_perf = True
    return params


_INVALID, _INTERRUPTED = -1, 2  # results of llama_decode: a wrong batch, and one ended by the abort callback
_PARTIAL = ll.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_BYTES = ctypes.POINTER(ctypes.c_uint8)
_PLACES = ctypes.POINTER(ll.llama_pos)
_Entry = tuple[int, int, int, bool]  # slot, token, position, whether its logits are needed


class Context:
    """Owns a llama_context and one batch. `close` frees both."""

    def __init__(
        self,
        model: LoadedModel,
        params: ll.llama_context_params,
        log: LlamaLog,
        adapters: Adapters | None = None,
        threads: Threads | None = None,
    ) -> None:
        self._threads = threads or Threads(params.n_threads, params.n_threads_batch)
        self._thread_counts = (0, 0)  # as set
        self.images_whole = False  # set for models in which the cells of an image attend to later ones
        self.handle = ll.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise load_error(log, "No context could be created for the model")
        self.interrupt = Interrupt()
        self.interrupt.attach(self.handle)
        log.expect_failures(self.interrupt.is_set)
        self._adapters = adapters
        self._scales: Scales = ()  # as set
        self._vocabulary_size = model.vocabulary.size
        self._memory = ll.llama_get_memory(self.handle)
        self._positions = Positions() if model.has_planes else None  # None: a token's position is its number
        self._window = max(1, model.sliding_window)
        self._is_hybrid = model.is_hybrid
        self._copies_late = not (params.kv_unified or model.is_recurrent)  # at its next decode call
        self._copies: list[tuple[int, int]] = []  # those to come: sources and targets
        self._room: int = ll.llama_n_batch(self.handle)
        self._batch = ll.llama_batch_init(self._room, 0, 1)
        self._views: dict[int, NDArray[np.float32]] = {}  # by address: creating one takes longer than a look-up

    def decode_runs(self, runs: Sequence[Run]) -> None:
        """Compute runs of sequences with the same adapters. `logits` numbers all runs' tokens.

        Raises DecodeFailed, and DecodeInterrupted after `interrupt` was set.
        """
        self._set_adapters({run.scales for run in runs})
        if runs[0].image is not None:
            self._decode_image(runs[0], runs[0].image)
            return
        entries: list[_Entry] = []
        for run in runs:
            first = self._position(run.slot, run.start)
            entries += [(run.slot, token, first + i, i >= run.silent) for i, token in enumerate(run.tokens)]
        self._decode(entries)

    def _position(self, slot: int, token: int) -> int:
        """The position, for the model, of this token of a slot's text."""
        return token if self._positions is None else token - self._positions.saved(slot, token)

    def _decode_image(self, run: Run, image: Image) -> None:
        """Models that read an image as a whole let all of its cells attend to one another."""
        if len(run) != len(image):
            raise DecodeFailed(f"The call has {len(run)} tokens for an image of {len(image)} cells.")
        if len(run) > self._room:
            raise DecodeFailed(f"An image of {len(run)} tokens does not fit into a call of {self._room}.")
        self._set_threads()
        places = np.ascontiguousarray(self._places(run, image))
        batch = ll.llama_batch_init(len(run), image.embeddings.shape[1], 1)
        own_places = ctypes.cast(batch.pos, _PLACES)  # a copy of the pointer: batch.pos itself is a view
        batch.pos = places.ctypes.data_as(_PLACES)  # llama.cpp allocated one per cell
        ll.llama_set_causal_attn(self.handle, not self.images_whole)
        try:
            ctypes.memmove(batch.embd, image.embeddings.ctypes.data, image.embeddings.nbytes)
            for i in range(len(run)):
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = run.slot
                batch.logits[i] = i >= run.silent
            batch.n_tokens = len(run)
            self._compute(batch)
        finally:
            ll.llama_set_causal_attn(self.handle, True)
            batch.pos = own_places
            ll.llama_batch_free(batch)
        if self._positions is not None and not image.after:
            self._positions.add(run.slot, run.start - image.before, image.before + len(run), image.positions)

    def _places(self, run: Run, image: Image) -> Places:
        """The cells' positions: [4, cells] where the model places images in rows and columns, otherwise [cells]."""
        first = self._position(run.slot, run.start - image.before)  # of the whole image
        if (image.places is None) != (self._positions is None):
            raise DecodeFailed("The image's positions are not of the kind that the model uses.")
        if image.places is None:
            return np.arange(first + image.before, first + image.before + len(run), dtype=np.int32)
        if image.places.shape != (PLANES, len(run)) or (not image.before and image.places[0, 0] != first):
            raise DecodeFailed(f"The image comes at position {first}, but its own positions start elsewhere.")
        return image.places

    def _compute(self, batch: ll.llama_batch) -> None:
        code = ll.llama_decode(self.handle, batch)
        if code != _INVALID:
            self._copies.clear()
        if code == _INTERRUPTED:
            raise DecodeInterrupted
        if code != 0:
            raise DecodeFailed(f"llama.cpp could not compute this step (llama_decode returned {code}).")
        ll.llama_synchronize(self.handle)  # otherwise a GPU's work would be measured where its result is read

    def _set_adapters(self, wanted: Iterable[Scales]) -> None:
        """llama.cpp applies one set of adapters to a whole call."""
        scales, *others = wanted
        if others:
            raise DecodeFailed("Sequences with different adapters cannot share a call.")
        if self._adapters is not None and scales != self._scales:
            self._adapters.set(self.handle, scales)
            self._scales = scales

    def _set_threads(self) -> None:
        if (counts := (self._threads.count, self._threads.batch_count)) != self._thread_counts:
            ll.llama_set_n_threads(self.handle, *counts)
            self._thread_counts = counts

    def decode_inputs(self, inputs: Sequence[Sequence[int]]) -> None:
        """Compute whole texts, each in the sequence of its index, with embeddings for all tokens."""
        self._decode(
            [(slot, token, position, True) for slot, text in enumerate(inputs) for position, token in enumerate(text)]
        )

    def _decode(self, entries: Sequence[_Entry]) -> None:
        if len(entries) > self._room:  # the writes into llama.cpp's arrays are unchecked
            raise DecodeFailed(f"{len(entries)} tokens do not fit into a call of {self._room}.")
        self._set_threads()
        batch = self._batch
        for i, (slot, token, position, output) in enumerate(entries):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = slot
            batch.logits[i] = output
        batch.n_tokens = len(entries)
        self._compute(batch)

    def logits(self, index: int) -> NDArray[np.float32]:
        """The logits of the batch's token `index`, as a writable view of shape [vocabulary]."""
        address = ctypes.cast(ll.llama_get_logits_ith(self.handle, index), ctypes.c_void_p).value
        assert address is not None, "a token without logits"
        if (view := self._views.get(address)) is None:
            row = (ctypes.c_float * self._vocabulary_size).from_address(address)
            view = self._views[address] = np.ctypeslib.as_array(row)
        return view

    def keep_prefix(self, slot: int, tokens: int) -> None:
        """Drop from a sequence everything after its first `tokens` tokens."""
        if not ll.llama_memory_seq_rm(self._memory, slot, self._position(slot, tokens), -1):
            raise DecodeFailed(f"The cache of sequence {slot} cannot be cut at {tokens} tokens.")
        if self._positions is not None:
            self._positions.cut(slot, tokens)

    def copy(self, source: int, slot: int) -> None:
        """Replace what one sequence holds by what another does. Raises DecodeFailed, and leaves it empty then."""
        if self._is_hybrid:  # whose recurrent state llama.cpp would copy now, and its other cells later
            self.put_state(slot, self.state(source))
            return
        ll.llama_memory_seq_rm(self._memory, slot, -1, -1)
        ll.llama_memory_seq_cp(self._memory, source, slot, -1, -1)
        if self._copies_late:
            self._copies.append((source, slot))
        if self._positions is not None:
            self._positions.copy(source, slot)

    def can_continue(self, slot: int, tokens: int) -> bool:
        """Whether a sequence still has all that the token after its first `tokens` ones needs: it can be cut there.

        Always at its end; earlier, recurrent layers do not, and layers with a sliding window for a part of it.
        """
        position = self._position(slot, tokens)
        first = ll.llama_memory_seq_pos_min(self._memory, slot)
        last = ll.llama_memory_seq_pos_max(self._memory, slot)
        return bool(position <= last + 1 and first <= max(0, position - self._window))

    @property
    def cuts_in_window(self) -> bool:
        """Whether a part of a sequence's end can be cut token by token: with sliding windows and no recurrent state."""
        return self._window > 1 and not self._is_hybrid

    def checkpoint(self, slot: int) -> NDArray[np.uint8]:
        """What of a sequence cannot be cut: recurrent states, and the cells of sliding windows. Raises DecodeFailed."""
        self._finish_copies(slot, replaced=False)
        size = ll.llama_state_seq_get_size_ext(self.handle, slot, _PARTIAL)
        state = np.empty(size, np.uint8)
        if ll.llama_state_seq_get_data_ext(self.handle, state.ctypes.data_as(_BYTES), size, slot, _PARTIAL) != size:
            raise DecodeFailed(f"No checkpoint of sequence {slot} could be made.")
        return state

    def put_checkpoint(self, slot: int, tokens: int, state: NDArray[np.uint8]) -> None:
        """Cut a sequence to its first `tokens` tokens, after which this checkpoint was made, in it or in another one.

        Raises DecodeFailed, and leaves the sequence empty then.
        """
        self._finish_copies(slot, replaced=True)
        data, size = state.ctypes.data_as(_BYTES), state.size
        try:
            if ll.llama_state_seq_set_data_ext(self.handle, data, size, slot, _PARTIAL) != size:
                raise DecodeFailed(f"The checkpoint of sequence {slot} could not be restored.")
            self.keep_prefix(slot, tokens)  # after its state: a recurrent one cannot be cut before it is replaced
            if not self.can_continue(slot, tokens):
                raise DecodeFailed(f"The checkpoint of sequence {slot} is not of its first {tokens} tokens.")
        except DecodeFailed:
            self._empty(slot)
            raise

    def _finish_copies(self, slot: int, *, replaced: bool) -> None:
        """Let llama.cpp make the copies of this slot that it puts off until its next decode call.

        `replaced`: what the slot holds is about to be replaced, and may have to be copied to others first. Nothing else
        makes llama.cpp copy than computing a token, which is removed again.
        """
        if not any(slot == target or (replaced and slot == source) for source, target in self._copies):
            return
        _, target = self._copies[-1]
        end = ll.llama_memory_seq_pos_max(self._memory, target) + 1
        # A full sequence has no room for the token, but is copied before that.
        with contextlib.suppress(DecodeFailed, DecodeInterrupted):
            self._decode([(target, 0, end, False)])
        if not ll.llama_memory_seq_rm(self._memory, target, end, -1):
            self._empty(target)

    def state_size(self, slot: int) -> int:
        """Bytes that `state` returns."""
        own = 0 if self._positions is None else self._positions.encoded_size(slot)
        return int(ll.llama_state_seq_get_size(self.handle, slot)) + own

    def state(self, slot: int) -> NDArray[np.uint8]:
        """What a sequence holds, as bytes that any sequence of such a context can restore. Raises DecodeFailed."""
        self._finish_copies(slot, replaced=False)
        state = np.empty(self.state_size(slot), np.uint8)
        size = state.size
        if self._positions is not None:
            images = self._positions.encoded(slot)
            size -= images.size
            state[size:] = images
        if ll.llama_state_seq_get_data(self.handle, state.ctypes.data_as(_BYTES), size, slot) != size:
            raise DecodeFailed(f"The cache of sequence {slot} could not be saved.")
        return state

    def put_state(self, slot: int, state: NDArray[np.uint8]) -> None:
        """Replace what a sequence holds by saved bytes. Raises DecodeFailed, and leaves the sequence empty then."""
        self._finish_copies(slot, replaced=True)
        try:
            cells = state if self._positions is None else self._positions.decode(slot, state)
            if ll.llama_state_seq_set_data(self.handle, cells.ctypes.data_as(_BYTES), cells.size, slot) != cells.size:
                raise DecodeFailed(f"The cache of sequence {slot} could not be restored.")
        except DecodeFailed:
            self._empty(slot)
            raise

    def _empty(self, slot: int) -> None:
        ll.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if self._positions is not None:
            self._positions.cut(slot, 0)

    def compute_rows(self, rows: int) -> None:
        """Compute a prompt of so many tokens in an empty context, to measure how long that takes."""
        self.decode_runs([Run(slot=0, tokens=[0] * rows, start=0, silent=rows - 1)])
        self.clear()

    def clear(self) -> None:
        """Empty all sequences, without overwriting the cache: that would take long."""
        ll.llama_memory_clear(self._memory, False)
        if self._positions is not None:
            self._positions.clear()

    def close(self) -> None:
        ll.llama_batch_free(self._batch)
        ll.llama_free(self.handle)


def open_context(
    model: LoadedModel, load: Load, log: LlamaLog, threads: Threads, adapters: Adapters | None = None
) -> Context:
    """A context for completing prompts, warmed up: every weight is read once, so that no request waits for it."""
    context = Context(model, generation_params(load, on_gpu=model.gpu_layers > 0), log, adapters, threads)
    context.compute_rows(1)
    return context
