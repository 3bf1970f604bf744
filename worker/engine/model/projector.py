"""The projector (mmproj) of a vision model, by llama.cpp's libmtmd: it encodes images as embeddings."""

import ctypes
import hashlib
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from llama_cpp import llama_cpp as ll
from llama_cpp import mtmd_cpp as mtmd

from atelier.errors import DecodeFailed, InvalidRequest, LoadFailed
from worker.engine.chat_images import Picture
from worker.engine.model.decode_run import PLANES, Embeddings, Image, Places
from worker.engine.model.loaded_model import LlamaLog, LoadedModel, load_error

KEPT_BYTES = 64 * 2**20  # of encoded images, for a conversation's next turn
CELL_BITS = 20  # of a cell's index: more cells than any context has
DIGEST_BYTES = 12
LEAST_SCALED = 256  # cells; HunyuanVL's smallest image: libmtmd rejects a lower limit for it
MOST_SCALED = 4096  # libmtmd's own choice for Qwen-VL
PLANE_ORDER = [0, 2, 1, 3]  # libmtmd returns time, column, row, rest; llama.cpp reads rows first


@dataclass(frozen=True, slots=True)
class ImageChunk:
    """An image, or a tile of one, in a prompt.

    Its cells have numbers in place of token ids. They are negative and derived from the pixels, so that prompts
    with images are compared, shared and counted like text.
    """

    cells: Sequence[int]
    positions: int  # that they take
    handle: mtmd.mtmd_input_chunk_p

    def __del__(self) -> None:
        mtmd.mtmd_input_chunk_free(self.handle)


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a prompt. `parse_special`: control tokens that are written out in it are recognised."""

    text: str
    parse_special: bool


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits for the cells of an image, in tokens."""

    graph: int  # that the context can compute together, as it must where all cells attend to one another
    at_once: int  # that a call computes where they do not, as other sequences wait meanwhile
    context: int  # of a prompt and its completion


class Projector:
    """Owns the mtmd_context. `close` frees it. `read` and `encode` may be called on different threads."""

    def __init__(
        self, path: str, model: LoadedModel, log: LlamaLog, limits: ImageLimits, *, threads: int, flash: int
    ) -> None:
        """Load the file. Raises LoadFailed, also for a projector of another model."""
        mtmd.mtmd_log_set(log.callback, ctypes.c_void_p(0))
        self.marker = f"<image {secrets.token_hex(16)}>"  # cannot be guessed, so no prompt can contain it
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = model.gpu_layers > 0
        params.n_threads = threads
        params.flash_attn_type = flash
        params.media_marker = self.marker.encode()
        params.print_timings = False
        params.warmup = False
        if model.has_planes:  # these models read images of almost any size, and scale larger ones down to this
            params.image_max_tokens = min(MOST_SCALED, max(LEAST_SCALED, limits.context // 2))
        self._handle = mtmd.mtmd_init_from_file(path.encode(), model.handle, params)
        if not self._handle:
            raise load_error(
                log, f"The image projector {path} could not be loaded; without it in its folder the model loads"
            )
        if not mtmd.mtmd_support_vision(self._handle):
            mtmd.mtmd_free(self._handle)
            raise LoadFailed(f"The file {path} is not an image projector.")
        self.whole = bool(mtmd.mtmd_decode_use_non_causal(self._handle, None))
        self._has_planes = bool(mtmd.mtmd_decode_use_mrope(self._handle))
        self._width = int(ll.llama_model_n_embd_inp(model.handle))
        self._limits = limits
        self._encoding = threading.Lock()  # libmtmd encodes one at a time
        self._encoded: OrderedDict[int, Embeddings] = OrderedDict()  # by first cell; the least recently used first

    def read(
        self, texts: Sequence[TextPart], pictures: Sequence[Picture], *, add_special: bool
    ) -> tuple[list[int], list[ImageChunk]]:
        """The tokens of texts with a marker for each picture, among them the images' cells. Raises InvalidRequest."""
        lost = InvalidRequest("The chat template lost an image, or an image is not usable.", param="messages")
        if sum(each.text.count(self.marker) for each in texts) != len(pictures):
            raise lost
        with _bitmaps(pictures) as bitmaps, _chunks() as chunks:
            parts = list(self._parts(texts, iter(bitmaps)))
            pointers = (ctypes.POINTER(mtmd.mtmd_input_part) * len(parts))(*map(ctypes.pointer, parts))
            if mtmd.mtmd_tokenize_from_parts(self._handle, chunks, pointers, len(parts), add_special) != 0:
                raise lost
            return self._read_chunks(chunks)

    def _parts(
        self, texts: Sequence[TextPart], bitmaps: Iterator[mtmd.mtmd_bitmap_p]
    ) -> Iterator[mtmd.mtmd_input_part]:
        """The texts, cut at their markers, which stand for the bitmaps in their order."""
        for each in texts:
            for number, text in enumerate(each.text.split(self.marker)):
                if number:
                    yield mtmd.mtmd_input_part(None, next(bitmaps))
                data = text.encode()
                given = mtmd.mtmd_input_text(data, len(data), False, each.parse_special)
                yield mtmd.mtmd_input_part(ctypes.pointer(given), None)

    def _read_chunks(self, chunks: mtmd.mtmd_input_chunks_p) -> tuple[list[int], list[ImageChunk]]:
        tokens: list[int] = []
        found: list[ImageChunk] = []
        tiles = Counter[bytes]()  # so far, by picture
        for number in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, number)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                tokens += _text_tokens(chunk)
                continue
            count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
            if self.whole and count > self._limits.graph:
                raise InvalidRequest(
                    f"An image takes {count} tokens, and at most {self._limits.graph} fit: send a smaller one, "
                    "or load the model with a larger ubatch_size and batch_size.",
                    param="messages",
                )
            picture = bytes(mtmd.mtmd_input_chunk_get_id(chunk) or b"")
            positions = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
            found.append(
                ImageChunk(_cells(picture, tiles[picture], count), positions, mtmd.mtmd_input_chunk_copy(chunk))
            )
            tiles[picture] += 1
            tokens += found[-1].cells
        return tokens, found

    def encode(self, image_chunks: Mapping[int, ImageChunk]) -> dict[int, Image]:
        """A prompt's images as embeddings, by where they start. Takes long. Raises DecodeFailed."""
        images: dict[int, Image] = {}
        saved = 0  # positions fewer than cells, in the images before
        for start, chunk in sorted(image_chunks.items()):
            places = self._places(chunk, start - saved) if self._has_planes else None
            at_once = len(chunk.cells) if self.whole else self._limits.at_once
            images[start] = Image(self._embeddings(chunk), chunk.positions, at_once, places)
            saved += len(chunk.cells) - chunk.positions
        return images

    def _places(self, chunk: ImageChunk, first: int) -> Places:
        """The positions of the cells of an image that starts at the position `first`."""
        places = (mtmd.mtmd_decoder_pos * len(chunk.cells))()
        mtmd.mtmd_helper_image_get_decoder_pos(mtmd.mtmd_input_chunk_get_tokens_image(chunk.handle), first, places)
        numbers = np.frombuffer(places, np.int32).reshape(-1, PLANES)
        return np.ascontiguousarray(numbers[:, PLANE_ORDER].T)

    def _embeddings(self, chunk: ImageChunk) -> Embeddings:
        """[cells, width]; cached."""
        with self._encoding:
            first = chunk.cells[0]
            if (known := self._encoded.get(first)) is None:
                known = self._encoded[first] = self._encode(chunk)
                while len(self._encoded) > 1 and sum(each.nbytes for each in self._encoded.values()) > KEPT_BYTES:
                    self._encoded.popitem(last=False)
            self._encoded.move_to_end(first)
            return known

    def _encode(self, chunk: ImageChunk) -> Embeddings:
        if mtmd.mtmd_encode_chunk(self._handle, chunk.handle) != 0:
            raise DecodeFailed("llama.cpp could not encode an image.")
        count = len(chunk.cells) * self._width
        output = mtmd.mtmd_get_output_embd(self._handle)
        return np.ctypeslib.as_array(output, shape=(count,)).reshape(-1, self._width).copy()

    def close(self) -> None:
        mtmd.mtmd_free(self._handle)


def _identity(picture: Picture) -> bytes:
    """A digest of the pixels and the size alone. Hexadecimal, as libmtmd's ids are C strings, which end at a zero."""
    rows = f"{picture.width}x{picture.height} ".encode()
    return hashlib.blake2b(rows + picture.rgb, digest_size=32).hexdigest().encode()


def _cells(picture: bytes, tile: int, count: int) -> list[int]:
    """The cells' numbers, for a tile of the picture with this identity."""
    digest = hashlib.blake2b(picture + tile.to_bytes(4, "big"), digest_size=DIGEST_BYTES).digest()
    first = (int.from_bytes(digest, "big") | 1 << 8 * DIGEST_BYTES) << CELL_BITS
    return [-(first + cell) for cell in range(count)]


def _text_tokens(chunk: mtmd.mtmd_input_chunk_p) -> list[int]:
    count = ctypes.c_size_t()
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return list(tokens[: count.value])


@contextmanager
def _chunks() -> Iterator[mtmd.mtmd_input_chunks_p]:
    chunks = mtmd.mtmd_input_chunks_init()
    try:
        yield chunks
    finally:
        mtmd.mtmd_input_chunks_free(chunks)


@contextmanager
def _bitmaps(pictures: Sequence[Picture]) -> Iterator[ctypes.Array[ctypes.c_void_p]]:
    handles = [_bitmap(picture) for picture in pictures]
    try:
        yield (mtmd.mtmd_bitmap_p_ctypes * len(handles))(*handles)
    finally:
        for handle in handles:
            mtmd.mtmd_bitmap_free(handle)


def _bitmap(picture: Picture) -> mtmd.mtmd_bitmap_p:
    pixels = (ctypes.c_uint8 * len(picture.rgb)).from_buffer_copy(picture.rgb)
    handle = mtmd.mtmd_bitmap_init(picture.width, picture.height, pixels)
    mtmd.mtmd_bitmap_set_id(handle, _identity(picture))
    return handle
