"""Decoding what clients send as images, and where images stand in messages."""

import numpy as np
import pytest
from PIL import Image

from atelier.errors import ContextLengthExceeded, InvalidRequest
from atelier.launch import LaunchSpec
from atelier.settings import Load
from tests.support.pictures import red
from worker.engine.fitting import fit
from worker.engine.interface import ChatPrompt, Prompt
from worker.engine.messages import count_images, with_images_written
from worker.engine.pictures import decode_picture
from worker.engine.runs import Run, plan_calls
from worker.engine.scripted import ScriptedEngine
from worker.engine.slices import BLOCKS

IMAGE = {"type": "image"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_usual_formats_become_pixels(kind: str) -> None:
    picture = decode_picture(red(10, 8, kind), 1)
    assert (picture.format, picture.width, picture.height) == (kind, 10, 8)
    assert len(picture.rgb) == 10 * 8 * 3


def test_an_image_is_turned_as_its_camera_says() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    assert decode_picture(red(10, 8, "JPEG", exif=turned), 1).width == 8


@pytest.mark.parametrize("spoilt", [b"", b"text", red(10, 8, "TIFF"), red(10, 8)[:50], red(9000, 9000, "BMP")])
def test_other_formats_cut_files_and_too_many_pixels_are_refused(spoilt: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Image 3") as caught:
        decode_picture(spoilt, 3)
    assert caught.value.param == "messages"


def test_images_are_written_where_they_stand() -> None:
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


def test_a_message_that_is_left_out_takes_its_images_along() -> None:
    turns = [{"role": "user", "content": [IMAGE]}, {"role": "assistant", "content": "x"}]
    chat = ChatPrompt([*turns, *turns, turns[0]], images=[b"\1", b"\2", b"\3"])
    fitted = fit(chat, [25], middle=False, bos=-1, tokenize=seen)
    assert fitted.dropped.messages == 2
    assert {-token // 100 for token in fitted.tokens if token < 0} == {2, 3}


def test_an_image_is_never_cut_in_the_middle() -> None:
    chat = ChatPrompt([{"role": "user", "content": [IMAGE, IMAGE]}], images=[b"\1", b"\2"])
    with pytest.raises(ContextLengthExceeded, match="images"):
        fit(chat, [16], middle=True, bos=-1, tokenize=seen)


def test_an_image_is_one_slice() -> None:
    assert BLOCKS.cut(range(30), {5: 10, 15: 3}) == [5, 15, 18, 22, 26, 30]


def test_an_image_has_a_call_of_its_own_in_its_place() -> None:
    before, after, other = Run(0, [1, 2], 0, 2), Run(0, [3], 12, 0), Run(1, [4], 0, 0)
    image = Run(0, range(-10, 0), 2, 10, image=np.zeros((10, 4), np.float32))
    assert plan_calls([before, image, after, other], 4, joined=True) == [[before], [image], [after, other]]


async def test_the_scripted_engine_says_what_it_sees() -> None:
    spec = LaunchSpec(
        instance_id="a", engine="scripted", model_path="", load=Load(), address="", token="", grace_seconds=1
    )
    engine = ScriptedEngine(spec, lambda _: None)
    chat = ChatPrompt([{"role": "user", "content": [{"type": "text", "text": "this: "}, IMAGE]}], images=[red(10, 8)])
    assert await engine.render(chat) == "user: this: [image PNG 10x8]\nassistant:"
    assert b" [image" in b"".join(piece for _, piece in await engine.tokenize(chat, True))
