"""Conversion between protobuf and the engine's types."""

import orjson
import pytest

from atelier.errors import ContextLengthExceeded, InvalidRequest, from_message
from atelier.generation_types import Finished, Statistics, StopReason
from atelier.prompt_end import PromptEnd
from atelier.submission import Echo, Gbnf, JsonObject, JsonSchema, Lark, Regex
from protos import inference_pb2 as pb
from worker.engine.interface import Accepted, ChatPrompt, Delta, Failed
from worker.wire import event_message, read_submit

STATISTICS = Statistics(10, 4, 7, 0.5, 1.5, 2.5, 3.5)


def test_an_unset_setting_takes_the_built_in_default() -> None:
    request = read_submit(pb.Submit(text="hi"))
    assert request.prompt == "hi"
    assert request.sampling.temperature == 0.8
    assert request.sampling.max_tokens is None
    assert request.choices == 1


def test_zero_is_not_unset() -> None:
    submit = pb.Submit(text="hi")
    submit.sampling.temperature = 0
    submit.sampling.top_k = 0
    request = read_submit(submit)
    assert (request.sampling.temperature, request.sampling.top_k) == (0, 0)


def test_a_chat_carries_its_messages() -> None:
    messages = [{"role": "user", "content": "hi"}]
    request = read_submit(pb.Submit(chat=pb.Chat(messages_json=orjson.dumps(messages))))
    assert request.prompt == ChatPrompt(messages)


def test_the_end_of_a_prompt_survives_the_wire_and_is_checked() -> None:
    said = orjson.dumps([{"role": "assistant", "content": "hi"}])
    prompt = read_submit(pb.Submit(chat=pb.Chat(messages_json=said, end=pb.CONTINUED_MESSAGE))).prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.end is PromptEnd.CONTINUED_MESSAGE
    asked = orjson.dumps([{"role": "user", "content": "hi"}])
    with pytest.raises(InvalidRequest, match="the assistant's"):
        read_submit(pb.Submit(chat=pb.Chat(messages_json=asked, end=pb.CONTINUED_MESSAGE)))


@pytest.mark.parametrize("messages", [b"", b"{", b"{}", b"[1]", b'"text"', b"null"])
def test_malformed_messages_are_rejected(messages: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_submit(pb.Submit(chat=pb.Chat(messages_json=messages)))


def test_constraints_survive_the_wire() -> None:
    assert read_submit(pb.Submit(text="x", json_object=True)).constraint == JsonObject()
    assert read_submit(pb.Submit(text="x", json_schema="{}")).constraint == JsonSchema("{}")
    assert read_submit(pb.Submit(text="x", json_schema="{}", strict=True)).constraint == JsonSchema("{}", True)
    assert read_submit(pb.Submit(text="x", regex="a+")).constraint == Regex("a+")
    assert read_submit(pb.Submit(text="x", gbnf="root ::= x")).constraint == Gbnf("root ::= x")
    assert read_submit(pb.Submit(text="x", lark="start: x")).constraint == Lark("start: x")


def test_an_acceptance_names_unenforced_keywords() -> None:
    accepted = event_message(1, Accepted(3, ("not", "uniqueItems"))).accepted
    assert (accepted.prompt_tokens, list(accepted.unenforced)) == (3, ["not", "uniqueItems"])


def test_a_call_without_a_prompt_is_rejected() -> None:
    with pytest.raises(InvalidRequest):
        read_submit(pb.Submit())


def test_only_text_and_token_prompts_can_be_echoed() -> None:
    assert read_submit(pb.Submit(text="x", echo=pb.ECHO_FIRST)).echo is Echo.FIRST
    assert read_submit(pb.Submit(tokens=pb.Tokens(ids=[1]), echo=pb.ECHO_ALONE)).echo is Echo.ALONE
    assert read_submit(pb.Submit(text="x")).echo is None
    for prompt in ({"chat": pb.Chat(messages_json=b"[]")}, {"infill": pb.Infill(prefix="a", suffix="b")}):
        with pytest.raises(InvalidRequest, match="echoed"):
            read_submit(pb.Submit(**prompt, echo=pb.ECHO_FIRST))


@pytest.mark.parametrize("choices", [0, 9, 2**31])
def test_a_number_of_choices_out_of_bounds_is_rejected(choices: int) -> None:
    with pytest.raises(InvalidRequest, match="between 1 and 8"):
        read_submit(pb.Submit(text="x", choices=choices))


def test_a_delta_keeps_its_text_and_choice() -> None:
    message = event_message(7, Delta(2, "é", 1))
    assert (message.call, message.choice, message.delta.text, message.delta.tokens) == (7, 2, "é", 1)


@pytest.mark.parametrize("reason", [each for each in StopReason if each is not StopReason.UNSPECIFIED])
def test_every_stop_reason_has_a_protobuf_counterpart(reason: StopReason) -> None:
    message = event_message(1, Finished(0, reason, None, STATISTICS))
    assert pb.StopReason.Name(message.finished.reason) == reason.name
    assert message.finished.statistics.cached_tokens == 4
    assert not message.finished.HasField("stop_string")


def test_an_error_survives_the_wire() -> None:
    message = event_message(1, Failed(ContextLengthExceeded("too long", param="messages")))
    error = from_message(message.failed.error)
    assert isinstance(error, ContextLengthExceeded)
    assert (error.message, error.param, error.status) == ("too long", "messages", 400)
