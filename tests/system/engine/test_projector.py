"""A projector as the engine uses it, compared with libmtmd's own processing of a prompt with an image."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as ll
from llama_cpp import mtmd_cpp as mtmd

from atelier.errors import InvalidRequest, LoadFailed
from atelier.launch import LaunchSpec
from atelier.settings import Load
from tests.support.models.pictures import noise
from tests.support.models.tiny_llama import write_tiny_llama
from tests.support.models.tiny_projector import CELLS, PLANES, write_tiny_projector
from worker.engine.chat_images import Picture, decode_picture
from worker.engine.model.context import Context, generation_params
from worker.engine.model.decode_run import Run
from worker.engine.model.loaded_model import LlamaLog, LoadedModel
from worker.engine.model.projector import ImageLimits, Projector, TextPart
from worker.engine.model_loading import load_model

pytestmark = pytest.mark.system


def loading(path: Path, projector: Path) -> LaunchSpec:
    return LaunchSpec(
        instance_id="test/model",
        engine="llama",
        model_path=str(path),
        projector_path=str(projector),
        load=Load(context_length=256, parallel=2),
        address="",
        token="",
        grace_seconds=60,
    )


def test_a_projector_of_another_model_fails_the_load(tmp_path: Path) -> None:
    log = LlamaLog()
    model = write_tiny_llama(tmp_path / "tiny.gguf")
    with pytest.raises(LoadFailed, match=r"projector.*mismatch"):
        load_model(loading(model, write_tiny_projector(tmp_path / "mmproj.gguf", 64)), log, lambda _: True)
    (tmp_path / "spoilt.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(LoadFailed, match="projector"):
        load_model(loading(model, tmp_path / "spoilt.gguf"), log, lambda _: True)


@pytest.mark.parametrize("kind", sorted({**CELLS, **PLANES}))
def test_the_logits_after_an_image_equal_llama_cpps(tmp_path: Path, kind: str) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf", architecture=PLANES.get(kind, "llama"))
    projector_path = write_tiny_projector(tmp_path / "mmproj.gguf", 32, kind=kind)
    log = LlamaLog()
    model = LoadedModel(str(path), Load(), log, lambda _: True)
    projector = Projector(str(projector_path), model, log, ImageLimits(256, 256, 256), threads=1, flash=-1)
    text, picture = f"abc{projector.marker}def", decode_picture(noise(), 1)
    tokens, (image_chunk,) = projector.read([TextPart(text, parse_special=True)], [picture], add_special=True)
    at = tokens.index(image_chunk.cells[0])
    end = at + len(image_chunk.cells)
    image = projector.encode({at: image_chunk})[at]

    context = Context(model, generation_params(Load(context_length=256, parallel=1), on_gpu=False), log)
    context.images_whole = projector.whole
    context.decode_runs([Run(0, tokens[:at], 0, at)])
    context.decode_runs([Run(0, image_chunk.cells, at, len(image_chunk.cells), image=image)])
    context.decode_runs([Run(0, tokens[end:], end, len(tokens) - end - 1)])
    ours = context.logits(len(tokens) - end - 1).copy()
    context.clear()
    theirs = reference(projector, context, text, picture, model.vocabulary.size)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    for each in (context, projector, model):
        each.close()


def test_the_same_bytes_in_other_rows_are_another_image(tmp_path: Path) -> None:
    log = LlamaLog()
    model = LoadedModel(str(write_tiny_llama(tmp_path / "tiny.gguf")), Load(), log, lambda _: True)
    path = write_tiny_projector(tmp_path / "mmproj.gguf", 32)
    projector = Projector(str(path), model, log, ImageLimits(256, 256, 256), threads=1, flash=-1)

    def marked(count: int) -> list[TextPart]:
        return [TextPart(projector.marker * count, parse_special=True)]

    pictures = [Picture("PNG", *size, bytes(30 * 40 * 3)) for size in ((40, 30), (30, 40), (40, 30))]
    _, image_chunks = projector.read(marked(3), pictures, add_special=True)
    _, (alone,) = projector.read(marked(1), pictures[1:2], add_special=True)
    assert image_chunks[0].cells[0] != image_chunks[1].cells[0] == alone.cells[0]
    for each in (projector, model):
        each.close()


def test_control_tokens_count_in_some_parts_and_a_lost_image_is_an_error(tmp_path: Path) -> None:
    log = LlamaLog()
    model = LoadedModel(str(write_tiny_llama(tmp_path / "tiny.gguf")), Load(), log, lambda _: True)
    path = write_tiny_projector(tmp_path / "mmproj.gguf", 32)
    projector = Projector(str(path), model, log, ImageLimits(256, 256, 256), threads=1, flash=-1)
    picture, end = decode_picture(noise(), 1), model.vocabulary.eos
    parts = [
        TextPart(f"a</s>{projector.marker}", parse_special=True),
        TextPart("b</s>", parse_special=False),
        TextPart("</s>", parse_special=True),
    ]
    tokens, (image_chunk,) = projector.read(parts, [picture], add_special=True)
    assert [at for at, token in enumerate(tokens) if token == end] == [
        tokens.index(image_chunk.cells[0]) - 1,
        len(tokens) - 1,
    ]
    for pictures in ([], [picture, picture]):
        with pytest.raises(InvalidRequest, match="lost an image"):
            projector.read(parts, pictures, add_special=True)
    for each in (projector, model):
        each.close()


def reference(projector: Projector, context: Any, text: str, picture: Any, size: int) -> Any:
    """The result of libmtmd's own helper for the prompt."""
    data = text.encode()
    given = mtmd.mtmd_input_text(data, len(data), True, True)
    bitmap = mtmd.mtmd_bitmap_init(
        picture.width, picture.height, (ctypes.c_uint8 * len(picture.rgb)).from_buffer_copy(picture.rgb)
    )
    chunks = mtmd.mtmd_input_chunks_init()
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(projector._handle, chunks, ctypes.byref(given), bitmaps, 1) == 0
    past = ll.llama_pos()
    assert (
        mtmd.mtmd_helper_eval_chunks(projector._handle, context.handle, chunks, 0, 0, 256, True, ctypes.byref(past))
        == 0
    )
    logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context.handle, -1), shape=(size,)).copy()
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    return logits
