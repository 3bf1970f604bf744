"""The bytes of OpenAI's chunks."""

import orjson
import pytest

from gateway.events import Delta, Finished, Statistics, StopReason
from gateway.openai.stream import Head, chat_renderer, text_renderer

HEAD = Head("chat.completion.chunk", 'pub/"odd"-name', "chatcmpl-1", 1_700_000_000)
TEXTS = ["word", 'quo"te', "line\nbreak", "\u2028", "é😀", "\\", "\0", "data: [DONE]\n\n"]


def decoded(frame: bytes) -> object:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    return orjson.loads(frame.removeprefix(b"data: "))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_a_delta_is_one_line_of_json_with_the_text_as_it_is(text: str, include_usage: bool) -> None:
    frame = chat_renderer(HEAD, 2, include_usage=include_usage).event(Delta(1, text))
    assert decoded(frame) == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": 'pub/"odd"-name',
        "choices": [{"index": 1, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        **({"usage": None} if include_usage else {}),
    }


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (StopReason.EOS_FOUND, "stop"),
        (StopReason.STOP_STRING_FOUND, "stop"),
        (StopReason.MAX_PREDICTED_TOKENS_REACHED, "length"),
        (StopReason.CONTEXT_LENGTH_REACHED, "length"),
    ],
)
def test_the_end_of_a_choice_has_its_reason_and_an_empty_delta(reason: StopReason, told: str) -> None:
    chunk = decoded(chat_renderer(HEAD, 1, include_usage=False).event(Finished(0, reason, None, Statistics())))
    assert isinstance(chunk, dict)
    assert chunk["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": told}]


def test_a_text_completion_opens_with_nothing_and_has_text_in_its_choices() -> None:
    renderer = text_renderer(Head("text_completion", "m", "cmpl-1"), 1, include_usage=False)
    assert renderer.opening() == b""
    chunk = decoded(renderer.event(Delta(0, "a")))
    assert isinstance(chunk, dict)
    assert chunk["choices"] == [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}]


def test_every_choice_of_a_chat_opens_with_its_role() -> None:
    frames = chat_renderer(HEAD, 2, include_usage=False).opening().split(b"\n\n")[:-1]
    chunks = [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames]
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1]
    assert all(chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""} for chunk in chunks)
