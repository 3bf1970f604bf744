"""Decoding of images, and their positions in messages."""

import numpy as np
import pytest
from PIL import Image as PillowImage

from atelier.errors import ContextLengthExceeded, InvalidRequest
from atelier.launch import LaunchSpec
from atelier.settings import Load
from atelier.settings.groups import Inference
from tests.support.models.pictures import red
from tests.support.worker.batching import VOCABULARY
from worker.engine.batching.batch_plan import plan_calls
from worker.engine.batching.sequence import Sequence, Ticket
from worker.engine.chat_images import count_images, decode_picture, with_images_written
from worker.engine.interface import ChatPrompt, Prompt, Request, Source
from worker.engine.model.decode_run import PLANES, Image, Run
from worker.engine.prompt.context_overflow import fit
from worker.engine.prompt.prompt_preparation import Prepared
from worker.engine.prompt.prompt_slices import BLOCKS
from worker.engine.scripted import ScriptedEngine

IMAGE = {"type": "image"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_usual_formats_are_decoded(kind: str) -> None:
    picture = decode_picture(red(10, 8, kind), 1)
    assert (picture.format, picture.width, picture.height) == (kind, 10, 8)
    assert len(picture.rgb) == 10 * 8 * 3


def test_an_image_is_rotated_by_its_exif_orientation() -> None:
    turned = PillowImage.Exif()
    turned[0x0112] = 6  # a quarter turn
    assert decode_picture(red(10, 8, "JPEG", exif=turned), 1).width == 8


@pytest.mark.parametrize("spoilt", [b"", b"text", red(10, 8, "TIFF"), red(10, 8)[:50], red(9000, 9000, "BMP")])
def test_other_formats_truncated_files_and_too_many_pixels_are_rejected(spoilt: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Image 3") as caught:
        decode_picture(spoilt, 3)
    assert caught.value.param == "messages"


def test_images_are_marked_at_their_positions_in_messages() -> None:
    messages = [{"content": [IMAGE, {"type": "text", "text": "a"}]}, {"content": "b"}, {"content": [IMAGE]}]
    assert count_images(messages) == 2
    written = with_images_written(messages, lambda number: f"<{number}>")
    assert [part["text"] for message in (written[0], written[2]) for part in message["content"]] == ["<0>", "a", "<1>"]


def seen(prompt: Prompt) -> list[int]:
    """Ten cells an image, one token a message."""
    assert isinstance(prompt, ChatPrompt)
    assert count_images(prompt.messages) == len(prompt.images)
    cells = [-each[0] * 100 - cell for each in prompt.images for cell in range(1, 11)]
    return [*cells, *range(len(prompt.messages))]


def test_omitting_a_message_omits_its_images() -> None:
    turns = [{"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": "x"}]
    chat = ChatPrompt([*turns, *turns, turns[0]], images=[b"\1", b"\2", b"\3"])
    fitted = fit(chat, [25], middle=False, bos=-1, tokenize=seen)
    assert fitted.dropped.messages == 2
    assert {-token // 100 for token in fitted.tokens if token < 0} == {2, 3}


def test_an_image_is_never_split() -> None:
    chat = ChatPrompt([{"role": "user", "content": [IMAGE, IMAGE]}], images=[b"\1", b"\2"])
    with pytest.raises(ContextLengthExceeded, match="images"):
        fit(chat, [16], middle=True, bos=-1, tokenize=seen)


def test_an_image_is_one_slice() -> None:
    assert BLOCKS.cut(range(30), {5: 10, 15: 3}) == [5, 15, 18, 22, 26, 30]


def test_an_image_has_a_separate_call_at_its_position() -> None:
    before, after, other = Run(0, [1, 2], 0, 2), Run(0, [3], 12, 0), Run(1, [4], 0, 0)
    image = Run(0, range(-10, 0), 2, 10, image=Image(np.zeros((10, 4), np.float32), 10, 10))
    assert plan_calls([before, image, after, other], 4, joined=True) == [[before], [image], [after, other]]


def with_image(at_once: int) -> Sequence:
    """Six tokens, an image of 150 cells, ten tokens; it has a slot."""
    prompt = [*range(6), *range(-150, 0), *range(10)]
    cells = np.arange(150, dtype=np.float32).reshape(-1, 1)
    request = Request(prompt, Inference())
    prepared = Prepared(
        request,
        prompt,
        8,
        limited_by_context=False,
        matcher=None,
        slices=BLOCKS.cut(prompt, {6: 150}),
        scales=(),
        reusable=True,
        images={6: Image(cells, 20, at_once, np.tile(np.arange(150, dtype=np.int32), (PLANES, 1)))},
    )
    sequence = Sequence(Ticket(Source(0, 0), 1), 0, prepared, 0, VOCABULARY)
    sequence.place(0)
    sequence.begin(0)
    return sequence


def test_other_sequences_run_between_the_parts_of_a_large_image() -> None:
    sequence = with_image(64)
    assert sequence.prompt.finer_slices_left()[:6] == [2, 2, 2, 64, 64, 22]
    runs = sequence.prompt.runs(0, sequence.prompt.finer_slices_left(), joined=True)
    assert [(run.start, len(run)) for run in runs] == [(0, 6), (6, 64), (70, 64), (134, 22), (156, 10)]
    images = [run.image for run in runs if run.image]
    assert [(image.before, len(image), image.after) for image in images] == [(0, 64, 86), (64, 64, 22), (128, 22, 0)]
    for image in images:
        assert image.places is not None
        assert image.embeddings[0, 0] == image.places[0, 0] == image.before
    sequence.prompt.done = 70
    assert sequence.prompt.slices_left[:2] == [64, 22]


def test_an_image_with_bidirectional_attention_is_one_part_and_always_one_piece() -> None:
    assert with_image(150).prompt.finer_slices_left()[:4] == [2, 2, 2, 150]
    assert [len(piece) for piece in with_image(64).prompt.claims[:-1]] == [4, 2, 150, 4, 4]


async def test_the_scripted_engine_describes_its_images() -> None:
    spec = LaunchSpec(
        instance_id="a", engine="scripted", model_path="", load=Load(), address="", token="", grace_seconds=1
    )
    engine = ScriptedEngine(spec, lambda _: None)
    chat = ChatPrompt([{"role": "user", "content": [{"type": "text", "text": "this: "}, IMAGE]}], images=[red(10, 8)])
    assert await engine.render(chat) == "user: this: [image PNG 10x8]\nassistant:"
    assert b" [image" in b"".join(piece for _, piece in await engine.tokenize(chat, True))
