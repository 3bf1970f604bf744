"""Streams as they are on the wire."""

import json
from typing import Any

import pytest

from tests.bench.trace import read_trace


def chunk(text: str | None = None, finish_reason: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish_reason}], **more}).encode()


WHOLE = [chunk(""), chunk("Hel"), chunk("lo"), chunk(finish_reason="length"), b"data: [DONE]"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_text_arrives_when_its_event_is_complete(end: bytes) -> None:
    trace = read_trace(10.0, [(11.0 + number, line + end) for number, line in enumerate(WHOLE)])
    assert trace.text == "Hello"
    assert trace.arrivals == (12.0, 13.0)
    assert trace.time_to_first_token == 2.0
    assert trace.whole


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_event_may_arrive_in_pieces_of_any_size(size: int) -> None:
    body = b"\n\n".join(WHOLE) + b"\n\n"
    pieces = [(float(at), body[at : at + size]) for at in range(0, len(body), size)]
    trace = read_trace(0.0, pieces)
    assert (trace.text, trace.tokens, trace.whole) == ("Hello", 2, True)


def test_tokens_are_those_of_the_usage_if_there_is_one() -> None:
    usage = {"completion_tokens": 5, "prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode()
    trace = read_trace(0.0, [(1.0, b"\n".join([*WHOLE, last, b""]))])
    assert (trace.tokens, trace.prompt_tokens, trace.cached_tokens) == (5, 9, 4)


def test_a_stream_without_a_finish_reason_is_incomplete() -> None:
    assert not read_trace(0.0, [(1.0, chunk("Hel") + b"\n\ndata: [DONE]\n\n")]).whole


def test_an_error_in_the_stream_is_kept() -> None:
    trace = read_trace(0.0, [(1.0, b'data: {"error": {"message": "lost"}}\n\n')])
    assert trace.error == "lost"
    assert not trace.whole
