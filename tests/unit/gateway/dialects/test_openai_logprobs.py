"""Log-probabilities in OpenAI's two forms."""

import math

from atelier.generation_types import Finished, Statistics, StopReason
from gateway.core.events import Completion, TokenLogprob
from gateway.core.wire import read_echoed_logprobs, read_logprobs
from gateway.dialects.openai.openai_logprobs import TextLogprobsEncoder, best_choices, chat_logprobs
from gateway.dialects.openai.openai_requests import CompletionBody
from protos import inference_pb2 as pb

SMILE = "😀".encode()
TOKENS = [
    TokenLogprob(b"a", -0.5, (TokenLogprob(b"a", -0.5), TokenLogprob(b"b", -1.5))),
    TokenLogprob(SMILE[:2], -0.25, (TokenLogprob(b"\xff", -0.125),)),
    TokenLogprob(SMILE[2:], -3.0),
    TokenLogprob(b"!", -math.inf),
]


def test_a_chats_tokens_have_their_exact_bytes() -> None:
    content = chat_logprobs(TOKENS)["content"]
    assert [entry["token"] for entry in content] == ["a", "\ufffd", "\ufffd\ufffd", "!"]
    assert b"".join(bytes(entry["bytes"]) for entry in content) == "a😀!".encode()
    assert content[0]["top_logprobs"] == [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -1.5, "bytes": [98]},
    ]
    assert content[2]["top_logprobs"] == []


def test_an_impossible_token_has_a_finite_log_probability() -> None:
    assert chat_logprobs(TOKENS)["content"][3]["logprob"] == -9999.0


def test_tokens_of_a_text_completion_have_offsets_in_characters() -> None:
    rendered = TextLogprobsEncoder().render(TOKENS)
    assert rendered["tokens"] == ["a", "\ufffd", "\ufffd\ufffd", "!"]
    assert rendered["token_logprobs"] == [-0.5, -0.25, -3.0, -9999.0]
    assert rendered["text_offset"] == [0, 1, 1, 2]


def test_top_logprobs_include_the_token_itself_and_the_likelier_of_equal_texts() -> None:
    likeliest = TextLogprobsEncoder().render(TOKENS)["top_logprobs"]
    assert likeliest == [
        {"a": -0.5, "b": -1.5},
        {"\ufffd": -0.125},
        {"\ufffd\ufffd": -3.0},
        {"!": -9999.0},
    ]


def test_the_end_of_sequence_token_is_not_reported() -> None:
    end = pb.TokenLogprob(id=2, piece=b"", logprob=-0.5)
    assert read_logprobs(pb.Delta(text="held back", tokens=0, logprobs=[end])) == []


def test_a_workers_log_probabilities_are_read_whole() -> None:
    top = [pb.TokenLogprob(id=5, piece=b"\xc3", logprob=-0.5)]
    message = pb.TokenLogprob(id=5, piece=b"\xc3", logprob=-0.5, top=top)
    assert read_logprobs(pb.Delta(text="", tokens=1, logprobs=[message])) == [
        TokenLogprob(b"\xc3", -0.5, (TokenLogprob(b"\xc3", -0.5),))
    ]


def test_the_first_token_of_a_prompt_has_no_log_probability() -> None:
    echoed = pb.Echoed(text="ab", logprobs=[pb.TokenLogprob(piece=b"a"), pb.TokenLogprob(piece=b"b", logprob=-0.5)])
    rendered = TextLogprobsEncoder().render(read_echoed_logprobs(echoed))
    assert rendered["tokens"] == ["a", "b"]
    assert rendered["token_logprobs"] == [None, -0.5]
    assert rendered["top_logprobs"] == [None, {"b": -0.5}]
    assert rendered["text_offset"] == [0, 1]


def test_best_of_ranks_the_choices_of_each_prompt_by_their_generated_tokens() -> None:
    def completed(text: str, *logprobs: float) -> Completion:
        tokens = [TokenLogprob(b"prompt", None), *(TokenLogprob(b"x", value) for value in logprobs)]
        return Completion(text, Finished(0, StopReason.EOS_FOUND, None, Statistics(1, 0, len(logprobs))), tokens)

    first = [completed("empty"), completed("fair", -0.5, -1.5), completed("best", -0.25)]
    second = [completed("long", *[-0.5] * 9), completed("short", -1.0), completed("odd", -3.0)]
    body = CompletionBody(model="m", prompt="a", n=2, best_of=3)
    best = best_choices(body, first + second)
    assert [each.text for each in best] == ["best", "fair", "long", "short"]
    assert all(each.logprobs is None for each in best)
    with_logprobs = best_choices(body.model_copy(update={"logprobs": 1}), first + second)
    assert [each.logprobs for each in with_logprobs] == [
        first[2].logprobs,
        first[1].logprobs,
        second[0].logprobs,
        second[1].logprobs,
    ]
