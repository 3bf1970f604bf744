"""Chats, fragments and heartbeats of LM Studio's SDK protocol."""

import asyncio
import base64
from typing import Any

import pytest

from atelier.errors import UnsupportedField
from atelier.generation_types import Finished, Statistics, StopReason, ToolCallPiece
from atelier.prompt_end import PromptEnd
from gateway.core.call import Account, Origin
from gateway.core.events import Delta, PromptProgress, Reasoning, ToolCallDelta
from gateway.core.images import EncodedImage
from gateway.dialects.lmstudio_sdk.sdk_context import Channel, Heartbeat
from gateway.dialects.lmstudio_sdk.sdk_frames import History
from gateway.dialects.lmstudio_sdk.sdk_history import chat_messages, chat_of, completion_text, image_handle
from gateway.dialects.lmstudio_sdk.sdk_prediction import Fragments
from tests.support.models.pictures import red

END = Finished(0, StopReason.EOS_FOUND, None, Statistics())


def history(*messages: tuple[str, list[Any]]) -> History:
    return History.model_validate({"messages": [{"role": role, "content": parts} for role, parts in messages]})


def text(words: str) -> Any:
    return {"type": "text", "text": words}


def test_calls_and_their_results_become_separate_messages() -> None:
    call = {"type": "toolCallRequest", "toolCallRequest": {"id": "c1", "name": "add", "arguments": {"a": 1}}}
    result = {"type": "toolCallResult", "toolCallId": "c1", "content": "3"}
    unknown = {"type": "toolCallResult", "content": "4"}
    chat = history(("user", [text("one "), text("two")]), ("assistant", [text(""), call]), ("tool", [result, unknown]))
    assert chat_messages(chat) == [
        {"role": "user", "content": "one two"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
        {"role": "tool", "content": "4"},
    ]


def test_reasoning_in_the_history_is_separated_from_the_answer() -> None:
    chat = history(("assistant", [text("<think>hm</think>yes")]), ("user", [text("<think>hm</think>no")]))
    assert chat_messages(chat) == [
        {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
        {"role": "user", "content": "<think>hm</think>no"},
    ]


def test_reasoning_that_has_not_ended_is_no_answer() -> None:
    chat, end = chat_of(history(("user", [text("hi")]), ("assistant", [text("<think>hm")])))
    assert chat.messages[-1] == {"role": "assistant", "content": "", "reasoning_content": "hm"}
    assert end is PromptEnd.CONTINUED_MESSAGE


def test_a_completion_continues_the_texts_unchanged() -> None:
    assert completion_text(history(("system", [text("a ")]), ("user", [text("b"), text(" c")]))) == "a b c"


def test_an_uploaded_image_is_a_part_of_its_message_but_not_of_a_completion() -> None:
    image = encoded_red()
    handle = {"type": "file", "name": "red.png", **image_handle(image)}
    chat = history(("user", [text("one "), text("two"), handle]))
    source = EncodedImage(image, "history.messages[0].content[2].identifier")
    assert chat_messages(chat) == [
        {"role": "user", "content": [{"type": "text", "text": "one two"}, {"type": "image", "source": source}]}
    ]
    with pytest.raises(UnsupportedField, match="no images"):
        completion_text(chat)


def encoded_red() -> str:
    return base64.b64encode(red(3, 2)).decode()


def rendered(*batch: Any, structured: bool = False) -> list[tuple[Any, ...]]:
    return [shape(message) for message in Fragments(structured=structured).messages(list(batch), 9)]


def shape(message: Any) -> tuple[Any, ...]:
    if "fragment" in message:
        fragment = message["fragment"]
        return fragment["reasoningType"], fragment["content"], fragment["tokensCount"]
    return message["type"], *(
        message[name] for name in ("name", "content", "toolCallRequest", "rawContent") if name in message
    )


def test_reasoning_is_enclosed_in_tags() -> None:
    assert rendered(Reasoning(0, "hm"), Delta(0, "yes"), END) == [
        ("reasoningStartTag", "<think>", 9),
        ("reasoning", "hm", 0),
        ("reasoningEndTag", "</think>", 0),
        ("none", "yes", 0),
    ]


def test_reasoning_without_an_answer_is_closed_too() -> None:
    assert rendered(Reasoning(0, "hm"), END)[-1] == ("reasoningEndTag", "</think>", 0)


def test_a_structured_reply_omits_its_reasoning() -> None:
    assert rendered(Reasoning(0, "hm"), Delta(0, "{}"), END, structured=True) == [("none", "{}", 9)]


def test_each_fragment_counts_the_tokens_since_the_previous_one() -> None:
    fragments = Fragments(structured=False)
    counts = [fragments.messages([Delta(0, "a")], tokens)[0]["fragment"]["tokensCount"] for tokens in (3, 4, 8)]
    assert counts == [3, 1, 4]


def test_every_call_is_reported_from_its_name_to_its_end() -> None:
    pieces = [ToolCallPiece(0, "c0", "add", '{"a"'), ToolCallPiece(0, arguments=": 1}"), ToolCallPiece(1, "c1", "now")]
    assert rendered(*(ToolCallDelta(0, piece) for piece in pieces), END) == [
        ("toolCallGenerationStart",),
        ("toolCallGenerationNameReceived", "add"),
        ("toolCallGenerationArgumentFragmentGenerated", '{"a"'),
        ("toolCallGenerationArgumentFragmentGenerated", ": 1}"),
        ("toolCallGenerationEnd", {"id": "c0", "type": "function", "name": "add", "arguments": {"a": 1}}),
        ("toolCallGenerationStart",),
        ("toolCallGenerationNameReceived", "now"),
        ("toolCallGenerationEnd", {"id": "c1", "type": "function", "name": "now", "arguments": {}}),
    ]


def test_a_truncated_call_is_reported_as_failed() -> None:
    assert rendered(ToolCallDelta(0, ToolCallPiece(0, "c0", "add", '{"a"')), END)[-1] == (
        "toolCallGenerationFailed",
        '{"a"',
    )


def test_progress_is_a_fraction_of_the_prompt() -> None:
    messages = Fragments(structured=False).messages([PromptProgress(0, 8, 0, 2, 0.1)], 0)
    assert messages == [{"type": "promptProcessingProgress", "progress": 0.25}]


async def test_a_quiet_channel_repeats_its_last_message() -> None:
    sent: asyncio.Queue[Any] = asyncio.Queue()
    channel = Channel(account=Account("r"), origin=Origin("r", "f"), domain="llm", send=sent.put)
    async with Heartbeat(channel, "still here", seconds=0.001), asyncio.timeout(5):
        assert [await sent.get() for _ in range(3)] == ["still here"] * 3
