"""What turns images into what a model reads, as llama.cpp's libmtmd holds it."""

import ctypes
import hashlib
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as ll
from llama_cpp import mtmd_cpp as mtmd

from atelier.errors import DecodeFailed, InvalidRequest, LoadFailed
from worker.engine.chat_images import Picture
from worker.engine.model.decode_run import PLANES, Embeddings, Image, Places
from worker.engine.model.loaded_model import LlamaLog, Model, load_error

KEPT_BYTES = 64 * 2**20  # of encoded images that may come again
CELL_BITS = 20  # of a cell's number: more cells than any context has
DIGEST_BYTES = 12
LEAST_SCALED = 256  # cells; HunyuanVL's smallest image, which it refuses to be told fewer of
MOST_SCALED = 4096  # libmtmd's own choice for Qwen-VL
PLANE_ORDER = [0, 2, 1, 3]  # libmtmd tells time, column, row, rest; llama.cpp reads rows first


@dataclass(frozen=True, slots=True)
class Sight:
    """An image, or a tile of one, as it stands in a prompt.

    Its cells have numbers in place of tokens: negative ones, by what is to be seen, so that prompts are
    compared, shared and counted as if they were text.
    """

    cells: Sequence[int]
    positions: int  # that they take
    handle: Any  # the mtmd_input_chunk

    def __del__(self) -> None:
        mtmd.mtmd_input_chunk_free(self.handle)


@dataclass(frozen=True, slots=True)
class Room:
    """What there is of it for the cells of an image."""

    graph: int  # tokens that the model's context computes together, as it must where all cells see one another
    at_once: int  # and that it shall, where they do not: others wait meanwhile
    context: int  # of a prompt and its completion


class Projector:
    """Owns the mtmd_context. `close` frees it. `read` and `encode` may be called on different threads."""

    def __init__(self, path: str, model: Model, log: LlamaLog, room: Room, *, threads: int, flash: int) -> None:
        """Load the file; LoadFailed when it cannot be, or is not the model's."""
        mtmd.mtmd_log_set(log.callback, ctypes.c_void_p(0))
        self.marker = f"<image {secrets.token_hex(16)}>"  # nobody can write it into a prompt
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = model.gpu_layers > 0
        params.n_threads = threads
        params.flash_attn_type = flash
        params.media_marker = self.marker.encode()
        params.print_timings = False
        params.warmup = False
        if model.has_planes:  # these take images of almost any size, and scale down what is larger
            params.image_max_tokens = min(MOST_SCALED, max(LEAST_SCALED, room.context // 2))
        self._handle = mtmd.mtmd_init_from_file(path.encode(), model.handle, params)
        if not self._handle:
            raise load_error(
                log, f"The projector for images {path} could not be loaded; without it in its folder the model loads"
            )
        if not mtmd.mtmd_support_vision(self._handle):
            mtmd.mtmd_free(self._handle)
            raise LoadFailed(f"The file {path} is no projector for images.")
        self.whole = bool(mtmd.mtmd_decode_use_non_causal(self._handle, None))
        self._has_planes = bool(mtmd.mtmd_decode_use_mrope(self._handle))
        self._width = int(ll.llama_model_n_embd_inp(model.handle))
        self._room = room
        self._encoding = threading.Lock()  # libmtmd encodes one at a time
        self._encoded: OrderedDict[int, Embeddings] = OrderedDict()  # by first cell; the one unused for longest first

    def read(self, text: str, pictures: Sequence[Picture], *, add_special: bool) -> tuple[list[int], list[Sight]]:
        """The tokens of a text with a marker for each picture, the cells of images among them; InvalidRequest."""
        data = text.encode()
        given = mtmd.mtmd_input_text(data, len(data), add_special, True)
        with _bitmaps(pictures) as bitmaps, _chunks() as chunks:
            if mtmd.mtmd_tokenize(self._handle, chunks, ctypes.byref(given), bitmaps, len(pictures)) != 0:
                raise InvalidRequest("An image is not where the chat template puts it, or unfit.", param="messages")
            return self._taken(chunks)

    def _taken(self, chunks: Any) -> tuple[list[int], list[Sight]]:
        tokens: list[int] = []
        sights: list[Sight] = []
        tiles = Counter[bytes]()  # so far, by the picture that they are of
        for number in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, number)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                tokens += _text_tokens(chunk)
                continue
            count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
            if self.whole and count > self._room.graph:
                raise InvalidRequest(
                    f"An image takes {count} tokens, and {self._room.graph} are computed at once: send a smaller one, "
                    "or load the model with a larger ubatch_size and batch_size.",
                    param="messages",
                )
            picture = bytes(mtmd.mtmd_input_chunk_get_id(chunk) or b"")
            positions = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
            sights.append(Sight(_cells(picture, tiles[picture], count), positions, mtmd.mtmd_input_chunk_copy(chunk)))
            tiles[picture] += 1
            tokens += sights[-1].cells
        return tokens, sights

    def encode(self, sights: Mapping[int, Sight]) -> dict[int, Image]:
        """A prompt's images as the model reads them, by where they start. Takes long; DecodeFailed."""
        images: dict[int, Image] = {}
        saved = 0  # positions, by the images before
        for start, sight in sorted(sights.items()):
            places = self._places(sight, start - saved) if self._has_planes else None
            at_once = len(sight.cells) if self.whole else self._room.at_once
            images[start] = Image(self._embeddings(sight), sight.positions, at_once, places)
            saved += len(sight.cells) - sight.positions
        return images

    def _places(self, sight: Sight, first: int) -> Places:
        """Of an image that starts at the position `first`."""
        places = (mtmd.mtmd_decoder_pos * len(sight.cells))()
        mtmd.mtmd_helper_image_get_decoder_pos(mtmd.mtmd_input_chunk_get_tokens_image(sight.handle), first, places)
        numbers = np.frombuffer(places, np.int32).reshape(-1, PLANES)
        return np.ascontiguousarray(numbers[:, PLANE_ORDER].T)

    def _embeddings(self, sight: Sight) -> Embeddings:
        """[cells, width]; kept for a while."""
        with self._encoding:
            first = sight.cells[0]
            if (known := self._encoded.get(first)) is None:
                known = self._encoded[first] = self._encode(sight)
                while len(self._encoded) > 1 and sum(each.nbytes for each in self._encoded.values()) > KEPT_BYTES:
                    self._encoded.popitem(last=False)
            self._encoded.move_to_end(first)
            return known

    def _encode(self, sight: Sight) -> Embeddings:
        if mtmd.mtmd_encode_chunk(self._handle, sight.handle) != 0:
            raise DecodeFailed("llama.cpp could not encode an image.")
        count = len(sight.cells) * self._width
        output = mtmd.mtmd_get_output_embd(self._handle)
        return np.ctypeslib.as_array(output, shape=(count,)).reshape(-1, self._width).copy()

    def close(self) -> None:
        mtmd.mtmd_free(self._handle)


def _identity(picture: Picture) -> bytes:
    """The same for the same pixels in the same rows, whatever else is in the prompt; without zeros, as C ends there."""
    rows = f"{picture.width}x{picture.height} ".encode()
    return hashlib.blake2b(rows + picture.rgb, digest_size=32).hexdigest().encode()


def _cells(picture: bytes, tile: int, count: int) -> list[int]:
    """Of the nth tile of the picture with this identity."""
    digest = hashlib.blake2b(picture + tile.to_bytes(4, "big"), digest_size=DIGEST_BYTES).digest()
    first = (int.from_bytes(digest, "big") | 1 << 8 * DIGEST_BYTES) << CELL_BITS
    return [-(first + cell) for cell in range(count)]


def _text_tokens(chunk: Any) -> list[int]:
    count = ctypes.c_size_t()
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return list(tokens[: count.value])


@contextmanager
def _chunks() -> Iterator[Any]:
    chunks = mtmd.mtmd_input_chunks_init()
    try:
        yield chunks
    finally:
        mtmd.mtmd_input_chunks_free(chunks)


@contextmanager
def _bitmaps(pictures: Sequence[Picture]) -> Iterator[Any]:
    handles = [_bitmap(picture) for picture in pictures]
    try:
        yield (mtmd.mtmd_bitmap_p_ctypes * len(handles))(*handles)
    finally:
        for handle in handles:
            mtmd.mtmd_bitmap_free(handle)


def _bitmap(picture: Picture) -> Any:
    pixels = (ctypes.c_uint8 * len(picture.rgb)).from_buffer_copy(picture.rgb)
    handle = mtmd.mtmd_bitmap_init(picture.width, picture.height, pixels)
    mtmd.mtmd_bitmap_set_id(handle, _identity(picture))
    return handle
