"""The bytes of OpenAI's chunks."""

from typing import Any

import orjson
import pytest

from atelier.generation_types import Finished, Statistics, StopReason
from gateway.core.events import Delta, PromptProgress, TokenLogprob
from gateway.dialects.openai.openai_stream import Head, chat_renderer, system_fingerprint, text_renderer
from gateway.fleet.snapshot import Instance

HEAD = Head("chat.completion.chunk", 'pub/"odd"-name', "chatcmpl-1", "fp_1", 1_700_000_000)
TEXTS = ["word", 'quo"te', "line\nbreak", "\u2028", "é😀", "\\", "\0", "data: [DONE]\n\n"]


def decoded(frame: bytes) -> object:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    return orjson.loads(frame.removeprefix(b"data: "))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_a_delta_is_one_line_of_json_with_the_text_unescaped(text: str, include_usage: bool) -> None:
    frame = chat_renderer(HEAD, 2, include_usage=include_usage).event(Delta(1, text))
    assert decoded(frame) == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "system_fingerprint": "fp_1",
        "model": 'pub/"odd"-name',
        "choices": [{"index": 1, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        **({"usage": None} if include_usage else {}),
    }


@pytest.mark.parametrize(
    ("reason", "finish_reason"),
    [
        (StopReason.EOS_FOUND, "stop"),
        (StopReason.STOP_STRING_FOUND, "stop"),
        (StopReason.MAX_PREDICTED_TOKENS_REACHED, "length"),
        (StopReason.CONTEXT_LENGTH_REACHED, "length"),
    ],
)
def test_the_last_chunk_of_a_choice_has_a_finish_reason_and_an_empty_delta(
    reason: StopReason, finish_reason: str
) -> None:
    chunk = decoded(chat_renderer(HEAD, 1, include_usage=False).event(Finished(0, reason, None, Statistics())))
    assert isinstance(chunk, dict)
    assert chunk["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}]


def test_a_text_completion_has_no_opening_and_text_in_its_choices() -> None:
    renderer = text_renderer(Head("text_completion", "m", "cmpl-1", "fp_1"), 1, include_usage=False)
    assert renderer.opening() == b""
    chunk = decoded(renderer.event(Delta(0, "a")))
    assert isinstance(chunk, dict)
    assert chunk["choices"] == [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}]


def test_every_choice_of_a_chat_opens_with_its_role() -> None:
    frames = chat_renderer(HEAD, 2, include_usage=False).opening().split(b"\n\n")[:-1]
    chunks = [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames]
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1]
    assert all(chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""} for chunk in chunks)


def test_a_text_that_echoes_its_prompt_opens_with_it() -> None:
    head = Head("text_completion", "m", "cmpl-1", "fp_1")
    frames = text_renderer(head, 2, include_usage=False, openings=["a", "b"]).opening().split(b"\n\n")[:-1]
    choices = [orjson.loads(frame.removeprefix(b"data: "))["choices"][0] for frame in frames]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, "a"), (1, "b")]


def test_tokens_without_complete_text_are_reported_too() -> None:
    half = TokenLogprob(b"\xc3", -0.5)
    chunk = decoded(chat_renderer(HEAD, 1, include_usage=True).event(Delta(0, "", [half])))
    assert isinstance(chunk, dict)
    assert chunk["usage"] is None
    (choice,) = chunk["choices"]
    assert choice["delta"] == {"content": ""}
    assert choice["logprobs"] == {
        "content": [{"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3], "top_logprobs": []}],
        "refusal": None,
    }


def test_offsets_continue_across_the_chunks_of_each_choice() -> None:
    renderer = text_renderer(Head("text_completion", "m", "cmpl-1", "fp_1"), 2, include_usage=False)
    events = [Delta(number, "é1", [TokenLogprob("é".encode(), -1), TokenLogprob(b"1", -1)]) for number in (0, 1, 0)]
    chunks = [orjson.loads(renderer.event(event).removeprefix(b"data: ")) for event in events]
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0, 1], [0, 1], [2, 3]]


@pytest.mark.parametrize(("render", "body"), [(chat_renderer, {"delta": {}}), (text_renderer, {"text": ""})])
def test_progress_is_sent_with_an_empty_choice_of_its_prompt(render: Any, body: Any) -> None:
    chunk = decoded(render(HEAD, 2, include_usage=False).event(PromptProgress(1, 237, 10, 128, 0.181)))
    assert isinstance(chunk, dict)
    assert chunk["choices"] == [{"index": 1, **body, "logprobs": None, "finish_reason": None}]
    assert chunk["prompt_progress"] == {"total": 237, "cache": 10, "processed": 128, "time_ms": 181}


def test_a_fingerprint_changes_with_the_load_settings_and_says_what_is_reproducible() -> None:
    instances = [Instance(id="a", model_key="m", load=load) for load in ({}, {"parallel": 2}, {"reproducible": True})]
    prints = [system_fingerprint(instance) for instance in instances]
    assert len(set(prints)) == 3
    assert [each.endswith("-reproducible") for each in prints] == [False, False, True]
    assert system_fingerprint(Instance(id="b", model_key="m", load={})) == prints[0]
